"""Runs for which there is no room: a limit of the size of files needs no rights and no file system of its own.

``benchmarks/full_disk.py`` shows the same on a small file system that fills up.
"""

import os
import resource
import subprocess
import sys

import pytest

from caopd.training.checkpoints import sound_checkpoints

from .conftest import QUICKSTART, SMALL, fit_arguments


def fit_within(limit, directory, *configs, **settings):
    arguments = fit_arguments(directory, (QUICKSTART, *configs), settings, SMALL)
    return subprocess.run(
        [sys.executable, "-m", "caopd", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_ends_in_words(run, name, directory):
    assert run.returncode == 1, run.stderr[-4000:]
    (message,) = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert f"Expected room for {name}, but the file would be larger" in message
    assert "Traceback" not in run.stderr + run.stdout
    assert not list(directory.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "logger", "name"),
    [
        (20_000, "false", "CaOPD-SDFT-DrawTask-seed0/rollouts/round_00000.jsonl"),
        (20_000, "true", "a file, such as a log's,"),
    ],
)
def test_a_run_without_room_ends_in_words(limit, logger, name, tmp_path):
    """TensorBoard writes in a thread of its own."""
    run = fit_within(limit, tmp_path, **{"trainer.logger": logger, "trainer.max_epochs": 1})
    path = tmp_path / "lightning_logs" / name if name.startswith("CaOPD") else name
    assert_ends_in_words(run, path, tmp_path)


@pytest.mark.slow
def test_the_checkpoint_before_stays_and_the_run_goes_on_when_there_is_room(tmp_path):
    (tmp_path / "same.yaml").write_text(SAME_DIRECTORY.format(save_dir=tmp_path / "runs"))
    config, folder = tmp_path / "same.yaml", tmp_path / "runs" / "run" / "same"
    started = fit_within(resource.RLIM_INFINITY, tmp_path, config, **{"trainer.max_epochs": 1})
    assert started.returncode == 0, started.stderr[-4000:]
    before = folder / "checkpoints" / "round0.ckpt"
    (folder / "checkpoints" / "round7.ckpt.part").write_bytes(b"of a process that was killed")
    content = before.read_bytes()
    assert_ends_in_words(
        fit_within(1_000_000, tmp_path, config, ckpt_path=before), folder / "checkpoints" / "round1.ckpt", tmp_path
    )
    assert before.read_bytes() == content
    assert list(sound_checkpoints(folder)) == [(before, None)]
    resumed = fit_within(resource.RLIM_INFINITY, tmp_path, config, ckpt_path=before)
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    assert next(sound_checkpoints(folder)) == (folder / "checkpoints" / "round1.ckpt", None)


SAME_DIRECTORY = """
trainer:
  logger: {{class_path: TensorBoardLogger, init_args: {{save_dir: {save_dir}, name: run, version: same}}}}
"""
