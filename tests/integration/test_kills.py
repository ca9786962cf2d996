"""A run that is killed, and started again with the same command, ends as one that is not; long form: benchmarks."""

import signal

import pytest

from killing.outcome import differences, outcome

from .conftest import QUICKSTART, ROOT, options

RUN = [f"--config={QUICKSTART}", f"--config={ROOT / 'benchmarks' / 'killing' / 'run.yaml'}", "--ckpt_path=last"]
TWO = {"trainer.devices": 2, "trainer.strategy": "ddp"}
PLACES_OF_ONE = [
    "checkpoint, in place:5:",  # the round's, behind which the best checkpoint and the round's end are still to come
    "rollout, sampled:1:",
    "training, before a step:2:",
    "validation, within:2:",
    "metrics, opened:1:",
]
PLACES_OF_TWO = ["training, behind a gradient:2:1", "validation, logged:1:0"]
"""As in ``killing.victim``, in the order in which the run comes to them."""


@pytest.mark.parametrize(("num_processes", "places"), [(1, PLACES_OF_ONE), (2, PLACES_OF_TWO)], ids=["one", "two"])
def test_killed_and_started_again_a_run_ends_as_one_that_was_not(num_processes, places, forked, tmp_path):
    def start(name, place=""):
        settings = {"trainer.default_root_dir": tmp_path / name, **(TWO if num_processes > 1 else {})}
        return forked(["fit", *RUN, *options(settings)], tmp_path, num_processes, place)

    assert start("whole").returncode == 0
    for place in places:
        ended = start("killed", place)
        assert ended.statuses.count(-signal.SIGKILL) == 1, (place, ended.stderr[-3000:])
    assert start("killed").returncode == 0
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "killed")) == []
