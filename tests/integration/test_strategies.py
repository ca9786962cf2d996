"""DDP and FSDP2 on two processes do what one process does with the same global batch, and so do their checkpoints."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from caopd.cli import main

from .conftest import FSDP2, STRATEGIES, newest_results

# The teacher moves fast enough that a wrong teacher would show within two rounds.
# Plain SGD without clipping, since Adam and clipping would hide a gradient of the wrong scale.
COMMON = {
    "model.teacher.rate": 0.1,
    "model.optimizer": "torch.optim.SGD",
    "model.optimizer.lr": 0.05,
    "model.schedule": "constant_with_warmup",
    "trainer.gradient_clip_val": "null",
}
ONE_PROCESS = {**COMMON, "trainer.accumulate_grad_batches": 2}
TWO_PROCESSES = {**COMMON, "trainer.devices": 2}
TOLERANCE = 1e-6
"""Largest difference of a weight or a loss: sums over two halves round differently in float32."""


@pytest.fixture(scope="module")
def one_process(fit, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("one"), **ONE_PROCESS)


@pytest.fixture(scope="module", params=list(STRATEGIES))
def two_processes(request, spawn, tmp_path_factory):
    return spawn(tmp_path_factory.mktemp(request.param), **TWO_PROCESSES, **STRATEGIES[request.param])


def test_both_processes_write_one_run(two_processes):
    """All that a run writes and logs, once, with what Lightning turns on by default."""
    directory = two_processes.directory
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("events.out.tfevents")}
    own = {"config.yaml", "metrics.json", "rollouts/round_00000.jsonl", "rollouts/round_00001.jsonl"}
    assert events
    assert files - events == own | {"checkpoints/round0.ckpt", "checkpoints/round1.ckpt", "hparams.yaml"}
    for event in ("greedy", "sampled"):
        assert len(two_processes.events.Images(f"val/{event}/reliability")) == 2
    assert len(two_processes.events.Tensors("val/completions/text_summary")) == 2


def test_losses_and_weights_equal_one_process(one_process, two_processes):
    for tag in (
        "train/loss",
        "train/kl_body",
        "train/kl_confidence",
        "rollout/accuracy",
        "val/greedy/brier",
        "val/sampled/brier",
        "val/sampled/ece_high",
    ):
        assert two_processes.scalars(tag) == pytest.approx(one_process.scalars(tag), abs=TOLERANCE), tag
    expected, found = one_process.checkpoint("round1"), two_processes.checkpoint("round1")
    assert found["global_step"] == expected["global_step"] == 4
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, weight in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], weight, atol=TOLERANCE, rtol=0, msg=name)


GRPO = {
    "model.method": "GRPO",
    "model.loss": "PolicyGradientLoss",
    "model.loss.kl_coefficient": 0.1,
    "model.teacher": "Frozen",
    "data.round.num_trained_rollouts": "null",
    "data.batch_size": 8,
}


@pytest.fixture(scope="module")
def grpo_in_one_process(fit, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("grpo_one"), **{**ONE_PROCESS, **GRPO})


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_policy_gradients_equal_one_process(strategy, grpo_in_one_process, spawn, tmp_path):
    """Several steps a round, so that ratios and the divergence from the frozen reference are at work."""
    two = spawn(tmp_path, **{**TWO_PROCESSES, **GRPO, **STRATEGIES[strategy]})
    for tag in ("train/loss", "train/kl_reference", "train/kl_sampler", "rollout/reward", "rollout/zero_advantage"):
        assert two.scalars(tag) == pytest.approx(grpo_in_one_process.scalars(tag), abs=TOLERANCE), tag
    assert max(two.scalars("train/kl_reference")) > 10 * TOLERANCE
    expected, found = (run.checkpoint("round1")["state_dict"] for run in (grpo_in_one_process, two))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=TOLERANCE, rtol=0, msg=name)


TRUST_REGION = {
    "model.method": "SDFT",
    "model.loss.body": "TopK",
    "model.loss.body.k": 5,
    "model.loss.confidence": "null",
    "model.teacher": "TrustRegion",
    "model.teacher.rate": 0.5,
}


@pytest.fixture(scope="module")
def trust_region_in_one_process(fit, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("trust_one"), **{**ONE_PROCESS, **TRUST_REGION})


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_a_trust_region_equals_one_process(strategy, trust_region_in_one_process, spawn, tmp_path):
    """The student of now is half of the teacher: its sharded weights take part in a second forward pass."""
    two = spawn(tmp_path, **{**TWO_PROCESSES, **TRUST_REGION, **STRATEGIES[strategy]})
    for tag in ("train/loss", "train/kl_body", "train/teacher_entropy", "val/greedy/brier"):
        assert two.scalars(tag) == pytest.approx(trust_region_in_one_process.scalars(tag), abs=TOLERANCE), tag
    expected, found = (run.checkpoint("round1")["state_dict"] for run in (trust_region_in_one_process, two))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=TOLERANCE, rtol=0, msg=name)


def test_weights_have_moved(one_process):
    first, last = one_process.checkpoint("round0")["state_dict"], one_process.checkpoint("round1")["state_dict"]
    for who in ("student", "teacher"):
        name = f"{who}.hf.model.layers.0.mlp.up_proj.weight"
        assert (first[name] - last[name]).abs().max() > 10 * TOLERANCE


def test_checkpoint_goes_on_in_one_process(one_process, two_processes, fit, tmp_path):
    """The second round, resumed on one device from the two processes' first, ends where theirs did."""
    resumed = fit(tmp_path, ckpt_path=two_processes.checkpoint_file("round0"), **ONE_PROCESS)
    expected = one_process.checkpoint("round1")["state_dict"]
    for name, weight in resumed.checkpoint("round1")["state_dict"].items():
        torch.testing.assert_close(weight, expected[name], atol=TOLERANCE, rtol=0, msg=name)


@pytest.fixture(scope="module")
def sharded(spawn, tmp_path_factory):
    shards = {**FSDP2, "trainer.strategy.save_distributed_checkpoint": "true"}
    return spawn(tmp_path_factory.mktemp("shards"), **TWO_PROCESSES, **shards)


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=TOLERANCE, rtol=0, msg=name)


def test_a_sharded_checkpoint_goes_on_in_one_process(one_process, sharded, fit, tmp_path):
    assert sharded.checkpoint_file("round0").is_dir()
    resumed = fit(tmp_path, ckpt_path=sharded.checkpoint_file("round0"), **ONE_PROCESS)
    assert_same_weights(resumed.checkpoint("round1")["state_dict"], one_process.checkpoint("round1")["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_a_sharded_checkpoint_goes_on_under_any_strategy(strategy, number, one_process, sharded, spawn, tmp_path):
    settings = {**COMMON, **STRATEGIES[strategy], "trainer.devices": number}
    settings |= {"trainer.accumulate_grad_batches": 2} if number == 1 else {}
    settings |= {"data.batch_size": 2} if number == 4 else {}
    if strategy == "fsdp2":
        settings["trainer.strategy.data_parallel_size"] = number
    resumed = spawn(tmp_path, ckpt_path=sharded.checkpoint_file("round0"), **settings)
    assert_same_weights(resumed.checkpoint("round1")["state_dict"], one_process.checkpoint("round1")["state_dict"])


@pytest.mark.parametrize("weights", ["student", "teacher"])
def test_a_sharded_checkpoint_is_exported_as_it_is(weights, one_process, sharded, tmp_path):
    assert main(["export", str(sharded.checkpoint_file("round1")), str(tmp_path / "model"), "--weights", weights]) == 0
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    prefix, expected = f"{weights}.hf.", one_process.checkpoint("round1")["state_dict"]
    of_model = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}
    assert_same_weights(exported, of_model)


SAMPLED = """
data:
  evaluation:
    tasks:
      low: {class_path: caopd.tasks.DrawTask, init_args: {kinds: [low], num_train: 1, num_validation: 1, num_test: 21}}
    num_samples: 3
    batch_size: 8
"""


@pytest.mark.slow
def test_a_test_of_several_tasks_equals_one_process(one_process, command, tmp_path):
    """21 prompts and batches of 8: the second process has none in the last batch of the second task."""
    (tmp_path / "tasks.yaml").write_text(SAMPLED)
    given = [
        *("test", f"--config={one_process.directory / 'config.yaml'}", f"--config={tmp_path / 'tasks.yaml'}"),
        *(f"--ckpt_path={one_process.checkpoint_file('round1')}", "--trainer.logger=false"),
    ]
    assert main([*given, f"--trainer.default_root_dir={tmp_path / 'one'}"]) == 0
    directories = [newest_results(one_process.directory)]
    more = ("--trainer.devices=2", "--trainer.strategy=ddp", f"--trainer.default_root_dir={tmp_path / 'two'}")
    result = command(*given, *more)
    assert result.returncode == 0, result.stderr[-4000:]
    directories.append(newest_results(one_process.directory))
    assert directories[0] != directories[1]
    one, two = (json.loads((directory / "test.json").read_text())["tasks"] for directory in directories)
    assert one["low"].keys() == {"greedy", "sampled", "vote", "vote_stated"}
    for task, parts in one.items():
        for part, metrics in parts.items():
            assert two[task][part] == pytest.approx(metrics, abs=1e-12, nan_ok=True), (task, part)
