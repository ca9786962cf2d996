"""Groups that share their prompt, and micro-batches filled by tokens: the same training, as the command runs it."""

import pytest
import torch

from caopd.cli import main

from .conftest import QUICKSTART, STRATEGIES, Run, fit_arguments

WHOLE_GROUPS = {"data.round.num_trained_rollouts": "null", "data.batch_size": "32"}
"""Two optimizer steps a round, each on the four rollouts of eight prompts."""
LIMIT = {"data.tokens_per_batch": "80"}


def same_training(run, other):
    """Losses and gradients of a step differ by rounding; Adam makes more of it, where a gradient is close to zero."""
    assert run.scalars("train/loss") == pytest.approx(other.scalars("train/loss"), rel=2e-3)
    assert run.scalars("train/loss")[0] == pytest.approx(other.scalars("train/loss")[0], rel=1e-5)
    assert run.scalars("rollout/accuracy")[0] == other.scalars("rollout/accuracy")[0]


@pytest.fixture(scope="module")
def apart(fit, tmp_path_factory):
    """A run of a single micro-batch for every step."""
    return fit(tmp_path_factory.mktemp("apart"), **WHOLE_GROUPS)


@pytest.fixture(scope="module")
def limited(tmp_path_factory, every_step):
    """The same steps, cut into micro-batches of at most 80 tokens, with a checkpoint of every step."""
    directory = tmp_path_factory.mktemp("limited")
    assert main(fit_arguments(directory, (QUICKSTART, every_step), WHOLE_GROUPS | LIMIT)) == 0
    return Run(directory)


def test_a_limit_of_tokens_cuts_the_batches_and_changes_nothing_else(apart, limited):
    same_training(limited, apart)
    assert len(limited.scalars("train/loss")) == 4
    progress = [
        limited.checkpoint(f"step{step}")["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"]
        for step in (1, 2)
    ]
    assert progress[0] > 2
    assert progress[1] == 2 * progress[0]


def test_little_of_what_is_read_is_padding(limited):
    assert min(limited.scalars("train/share_of_tokens")) > 0.9


def test_a_run_that_was_cut_short_within_a_round_goes_on_as_if_it_had_not_been(limited, tmp_path, every_step):
    settings = {**WHOLE_GROUPS, **LIMIT, "ckpt_path": limited.checkpoint_file("step1")}
    assert main(fit_arguments(tmp_path, (QUICKSTART, every_step), settings)) == 0
    resumed = Run(tmp_path)
    assert resumed.scalars("train/loss") == limited.scalars("train/loss")[1:]
    first, second = (run.checkpoint("step4")["state_dict"] for run in (resumed, limited))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_limit_within_a_round_is_refused(limited, tmp_path, capsys):
    settings = {**WHOLE_GROUPS, "data.tokens_per_batch": "400", "ckpt_path": limited.checkpoint_file("step1")}
    assert main(fit_arguments(tmp_path, (QUICKSTART,), settings)) == 2
    assert "data.tokens_per_batch 80 (now 400)" in capsys.readouterr().err


def test_a_part_of_a_round_is_refused(tmp_path, capsys):
    settings = {**WHOLE_GROUPS, **LIMIT, "trainer.limit_train_batches": "2"}
    assert main(fit_arguments(tmp_path, (QUICKSTART,), settings)) == 2
    assert "`data.tokens_per_batch` to null" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_fill_their_micro_batches_and_train_as_one(strategy, apart, spawn, tmp_path):
    halves = {"data.batch_size": "16", "trainer.devices": 2}
    same_training(spawn(tmp_path, **WHOLE_GROUPS | LIMIT | STRATEGIES[strategy] | halves), apart)
