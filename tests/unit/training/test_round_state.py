from dataclasses import asdict, replace

import pytest

from caopd.errors import ConfigError
from caopd.rounds.batches import BatchPlan
from caopd.training.round_state import RoundProgress, RoundState

PLAN = BatchPlan(8, 2, 4)
STATE = RoundState(3, "rollouts/round_00003.jsonl", "ab", asdict(PLAN), 512, 16, 2)


@pytest.mark.parametrize(
    ("plan", "num_samples", "said"),
    [
        (BatchPlan(4, 2, 4), 512, "batch_size 8 (now 4)"),
        (BatchPlan(8, 4, 4), 512, "accumulate 2 (now 4)"),
        (BatchPlan(8, 2, 8), 512, "world_size 4 (now 8)"),
        (BatchPlan(8, 2, 4), 256, "num_samples 512 (now 256)"),
    ],
)
def test_the_rest_of_a_round_is_shared_out_as_its_beginning(plan, num_samples, said):
    STATE.check_plan(PLAN, 512)
    with pytest.raises(ConfigError) as raised:
        STATE.check_plan(plan, num_samples)
    assert said in str(raised.value)
    assert "end of a round" in str(raised.value)


def test_a_checkpoint_of_an_earlier_version_is_refused_within_a_round():
    with pytest.raises(ConfigError, match="earlier version"):
        RoundProgress({"number": 3, "num_batches_done": 2}).interrupted(3, "step7.ckpt")


def test_the_interrupted_round_is_gone_on_with_once_and_only_when_it_comes():
    saved = asdict(STATE)
    progress = RoundProgress(saved)
    assert progress.interrupted(3, "run/checkpoints/step7.ckpt").number == 3
    assert progress.interrupted(3, "run/checkpoints/step7.ckpt") is None
    assert RoundProgress(saved).interrupted(4, "run/checkpoints/step7.ckpt") is None
    assert RoundProgress().interrupted(0, None) is None


def test_rollouts_are_where_they_were_or_beside_the_checkpoint(tmp_path):
    """A run directory that was moved takes its rollouts with it."""
    checkpoint = tmp_path / "moved" / "checkpoints" / "step7.ckpt"
    there = tmp_path / "rollouts" / "round_00003.jsonl"
    saved = asdict(replace(STATE, file=str(there)))
    beside = tmp_path / "moved" / "rollouts" / "round_00003.jsonl"
    assert RoundState.restored(saved, checkpoint).file == str(beside.resolve())
    there.parent.mkdir()
    there.touch()
    assert RoundState.restored(saved, checkpoint).file == str(there)


def test_a_round_is_finished_when_every_batch_has_been_trained_on():
    assert not STATE.is_finished
    assert replace(STATE, num_batches_done=16).is_finished
