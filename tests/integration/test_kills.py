"""A run that is killed, and started again with the same command, ends as one that is not; long form: benchmarks."""

import pytest

from killing.outcome import differences, outcome
from killing.processes import run

from .conftest import QUICKSTART, ROOT

CONFIGS = (QUICKSTART, ROOT / "benchmarks" / "killing" / "run.yaml")
DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
PLACES_OF_ONE = [
    "checkpoint, in place:5:",  # the round's, behind which the best checkpoint and the round's end are still to come
    "rollout, sampled:1:",
    "training, before a step:2:",
    "validation, within:2:",
    "metrics, opened:1:",
]
PLACES_OF_TWO = ["training, behind a gradient:2:1", "validation, logged:1:0"]
PATIENCE = 60


@pytest.mark.parametrize(
    ("num_processes", "places", "options"), [(1, PLACES_OF_ONE, []), (2, PLACES_OF_TWO, DDP)], ids=["one", "two"]
)
def test_killed_and_started_again_a_run_ends_as_one_that_was_not(num_processes, places, options, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def start(name, place=""):
        arguments = [*(f"--config={path}" for path in CONFIGS), *options, "--ckpt_path=last"]
        arguments.append(f"--trainer.default_root_dir={tmp_path / name}")
        return run(["fit", *arguments], tmp_path / f"{name}.log", num_processes, place, patience=PATIENCE)

    assert start("whole").statuses == (0,) * num_processes
    for place in places:
        ended = start("killed", place)
        assert ended.num_killed == 1, (place, ended)
    assert start("killed").statuses == (0,) * num_processes
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "killed")) == []
