from dataclasses import asdict, replace

import pytest

from caopd.errors import ConfigError
from caopd.training.round_state import RoundProgress, RoundState

SETTINGS = {"data.seed": "0", "data.batch_size": "8"}
STATE = RoundState(3, "rollouts/round_00003.jsonl", "ab", SETTINGS, 16, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.seed": "0", "data.batch_size": "4"}, "has data.batch_size 8 (now 4): batches"),
        ({"data.seed": "1", "data.batch_size": "4"}, "has data.seed 0 (now 1), data.batch_size 8 (now 4): batches"),
        ({"data.seed": "0"}, "has data.batch_size 8 (now None): batches"),
        ({**SETTINGS, "data.task": "DrawTask()"}, "has data.task None (now DrawTask()): batches"),
    ],
)
def test_the_rest_of_a_round_has_the_settings_of_its_beginning(settings, said):
    STATE.check_settings(dict(SETTINGS))
    with pytest.raises(ConfigError) as raised:
        STATE.check_settings(settings)
    assert said in str(raised.value)
    assert "end of a round" in str(raised.value)


def test_a_checkpoint_with_other_fields_is_refused_within_a_round():
    with pytest.raises(ConfigError, match=r"step7\.ckpt.*how its batches were made"):
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
