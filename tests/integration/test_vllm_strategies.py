"""Two processes, each with a vLLM of its own, make the same run as one process with one vLLM.

The one process holds vLLM itself, which starts faster.
"""

import pytest
import torch

from caopd.rounds.buffer import load_groups
from tests.integration.conftest import FSDP2
from tests.integration.test_strategies import COMMON
from tests.needs import needs_vllm

pytestmark = needs_vllm

VLLM = {
    **COMMON,
    "data.engine": "caopd.rollouts.VLLMEngine",
    "data.engine.options": "{kv_cache_gib: 0.25}",
    "trainer.check_val_every_n_epoch": 2,
}
ONE_PROCESS = {**VLLM, "data.engine.mode": "in_process", "trainer.accumulate_grad_batches": 2}
DDP = {"trainer.strategy": "ddp", "trainer.devices": 2}
TOLERANCE = 1e-5
"""Largest difference of a weight or a loss: other batches and halved sums round differently in float32."""
DYING = """
from caopd.distributed import process_number
from caopd.rollouts import VLLMEngine, VLLMOptions
from caopd.rollouts.vllm.local import LocalVLLM

NUMBERS = iter(range(100))


class KillsItself(LocalVLLM):
    def start(self, *arguments):
        super().start(*arguments)
        with open(f"started_by_{process_number()}", "a") as file:
            file.write("again ")

    def sample(self, *arguments):
        if next(NUMBERS) == 2 and process_number() == 1:  # validation, first round, second round
            self._child._process.kill()
        return super().sample(*arguments)


class DyingEngine(VLLMEngine):
    def __init__(self):
        super().__init__(max_restarts=1)
        self._backend = KillsItself(VLLMOptions(kv_cache_gib=0.25))
"""


@pytest.fixture(scope="module")
def one_process(fit, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("one"), **ONE_PROCESS)


def test_fsdp2_samples_and_trains_as_one_process_also_when_a_vllm_dies_in_the_second_round(
    one_process, spawn, tmp_path
):
    """Process 1 starts its vLLM again, which samples the same share; that of process 0 has sampled and runs on."""
    (tmp_path / "dying.py").write_text(DYING)
    settings = {name: value for name, value in VLLM.items() if not name.startswith("data.engine")}
    run = spawn(tmp_path, **settings, **FSDP2, **{"trainer.devices": 2, "data.engine": "dying.DyingEngine"})
    assert_same_run(run, one_process)
    started = [(tmp_path / f"started_by_{number}").read_text().split() for number in range(2)]
    assert list(map(len, started)) == [1, 2]


@pytest.mark.slow
def test_ddp_does_too(one_process, spawn, tmp_path):
    assert_same_run(spawn(tmp_path, **VLLM, **DDP), one_process)


def test_a_resumed_run_samples_with_the_restored_weights(one_process, fit, tmp_path):
    """A fresh vLLM gets the checkpoint's weights before the first rollout: the second round is the same."""
    resumed = fit(tmp_path, ckpt_path=one_process.checkpoint_file("round0"), **ONE_PROCESS)
    assert tokens(resumed, 1) == tokens(one_process, 1)
    assert max(resumed.scalars("rollout/parity_max")) < 1e-4
    assert_same_weights(resumed, one_process)


def assert_same_run(found, expected):
    for number in range(2):
        assert tokens(found, number) == tokens(expected, number)
    for tag in ("train/loss", "train/kl_body", "train/kl_confidence", "rollout/accuracy", "val/greedy/brier"):
        assert found.scalars(tag) == pytest.approx(expected.scalars(tag), abs=TOLERANCE), tag
    assert max(found.scalars("rollout/parity_max")) < 1e-4
    assert_same_weights(found, expected)


def assert_same_weights(found, expected):
    wanted, weights = expected.checkpoint("round1")["state_dict"], found.checkpoint("round1")["state_dict"]
    assert weights.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, atol=TOLERANCE, rtol=0, msg=name)


def tokens(run, number):
    """Ids of all rollouts of a round, and the versions that they carry."""
    groups = load_groups(run.directory / f"rollouts/round_{number:05d}.jsonl")
    return [(v.rollout.token_ids, v.rollout.policy_version) for group in groups for v in group.rollouts]
