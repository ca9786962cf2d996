"""vLLM in process 0 of two, its groups handed whole to their processes: the same run as one process makes of it."""

import pytest
import torch

from caopd.buffer import load_groups
from tests.integration.test_strategies import COMMON, FSDP2

VLLM = {
    **COMMON,
    "data.engine": "caopd.rollouts.VLLMEngine",
    "data.engine.options": "{kv_cache_gib: 0.25}",
    "trainer.check_val_every_n_epoch": 2,
}
STRATEGIES = {"ddp": {"trainer.strategy": "ddp"}, "fsdp2": FSDP2}
TOLERANCE = 1e-5
"""Largest difference of a weight or a loss: other batches and halved sums round differently in float32."""


@pytest.fixture(scope="module")
def one_process(spawn, tmp_path_factory):
    return spawn(tmp_path_factory.mktemp("one"), **VLLM, **{"trainer.accumulate_grad_batches": 2})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_draw_and_train_as_one(strategy, one_process, spawn, tmp_path):
    two = spawn(tmp_path, **VLLM, **STRATEGIES[strategy], **{"trainer.devices": 2})
    for number in range(2):
        file = f"rollouts/round_{number:05d}.jsonl"
        assert tokens(two.directory / file) == tokens(one_process.directory / file)
    for tag in ("train/loss", "train/kl_reasoning", "train/kl_confidence", "rollout/accuracy", "val/brier"):
        assert two.scalars(tag) == pytest.approx(one_process.scalars(tag), abs=TOLERANCE), tag
    assert max(two.scalars("rollout/parity_max")) < 1e-4
    expected, found = one_process.checkpoint("round1")["state_dict"], two.checkpoint("round1")["state_dict"]
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=TOLERANCE, rtol=0, msg=name)


def tokens(file):
    """Ids of all rollouts of a round, and the versions that they carry."""
    return [(v.rollout.token_ids, v.rollout.policy_version) for group in load_groups(file) for v in group.rollouts]
