"""Settings under which a run would train nothing, or something else, without a word: as users meet them."""

import re

import pytest
import torch

from caopd.cli import main
from caopd.models import ModelSource
from caopd.models.tiny import build_model, build_tokenizer

from .conftest import FSDP2, QUICKSTART, fit_arguments
from .test_strategies import TOLERANCE

WARNINGS = {
    "teacher": "does not copy the confidence",
    "silent": "Confidences are hardly stated",
    "one value": "Confidences have collapsed",
    "rate": "has a learning rate of 0",
    "bfloat16": "of the bfloat16 weights",
}


def warned(text):
    return {kind: text.count(said) for kind, said in WARNINGS.items() if said in text}


def test_the_quickstart_is_warned_of_nothing(fit_with_defaults, tmp_path):
    """With enough rollouts in a round for every threshold."""
    sizes = {"data.round.num_prompts_per_round": 64, "data.round.num_rollouts": 8, "data.batch_size": 16}
    result = fit_with_defaults(tmp_path / "run", **sizes)
    assert result.returncode == 0, result.stderr[-4000:]
    assert warned(result.stderr) == {}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A model that states nothing and copies nothing."""
    directory = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer, width=32, num_layers=1).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_a_model_that_copies_and_states_nothing_is_told_of_once(fit_with_defaults, untrained, tmp_path):
    settings = {"model.source.name_or_path": untrained, "data.round.num_trained_rollouts": 4}
    result = fit_with_defaults(tmp_path / "run", **settings)
    assert result.returncode == 0, result.stderr[-4000:]
    assert warned(result.stderr) == {"teacher": 1, "silent": 1}


def test_a_moving_average_of_narrow_weights_ends_the_run_before_it_samples(capsys, tmp_path):
    assert main(fit_arguments(tmp_path, (QUICKSTART,), {"model.source.dtype": "bfloat16"})) == 2
    said = capsys.readouterr().err
    assert re.search(r"error: Expected the weights that are trained to be float32.*torch\.bfloat16.*rate 0\.0005", said)
    assert not list(tmp_path.rglob("round_*.jsonl"))


NARROW = {
    "model.source.dtype": "bfloat16",
    "model.source.lora": "caopd.models.LoRA",
    "model.source.lora.rank": 4,
    "model.teacher.rate": 0.1,
    "trainer.max_epochs": 1,
    "trainer.precision": "bf16-mixed",
    "data.parity.limit": 10,
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [pytest.param(FSDP2, id="fsdp2"), pytest.param({}, id="one")])
def test_adapters_over_narrow_weights_train_and_are_followed(strategy, spawn, tmp_path):
    devices = {"trainer.devices": 2, "data.batch_size": 2} if strategy else {}
    state = spawn(tmp_path, **NARROW, **strategy, **devices).checkpoint("round0")["state_dict"]
    dtypes = {(".lora_" in name, weight.dtype) for name, weight in state.items()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    moved = [name for name in state if name.startswith("student.") and "lora_B" in name and state[name].abs().max() > 0]
    assert moved
    for name in moved:
        share = state[name.replace("student.", "teacher.", 1)].norm() / state[name].norm()
        assert 0.1 < share < 0.5, "four steps of a rate of 0.1"


def test_the_first_step_of_a_warm_up_trains(fit, every_step, tmp_path, recwarn):
    run = fit(tmp_path, every_step, **{"model.warmup": 1.0, "trainer.max_epochs": 1})
    first, before = run.checkpoint("step1"), ModelSource().load_model(ModelSource().load_tokenizer()).hf.state_dict()
    assert any(not torch.equal(first["state_dict"][f"student.hf.{name}"], weight) for name, weight in before.items())
    rates = [run.checkpoint(f"step{step}")["optimizer_states"][0]["param_groups"][0]["lr"] for step in (1, 2, 3)]
    assert rates == pytest.approx([1.2e-3 * share / 5 for share in (2, 3, 4)]), "of the step that comes next"
    assert warned(" ".join(str(each.message) for each in recwarn)) == {}


def test_a_rate_of_zero_is_warned_of(fit, tmp_path):
    with pytest.warns(UserWarning, match="Optimizer step 0 has a learning rate of 0"):
        fit(tmp_path, **{"model.optimizer.lr": 0, "trainer.max_epochs": 1})


DECAY = {
    "model.decay": "matrices",
    "model.optimizer": "torch.optim.AdamW",
    "model.optimizer.lr": 1e-4,
    "model.optimizer.weight_decay": 500.0,  # a step shrinks a weight by a twentieth, far more than it learns
    "model.optimizer.eps": 1.0,
    "model.schedule": "constant_with_warmup",
    "model.warmup": 0.0,
    "model.source.attn_implementation": "eager",
    "trainer.max_epochs": 1,
    "trainer.gradient_clip_val": "null",
}


@pytest.fixture(scope="module")
def decayed(fit, every_step, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("decay"), every_step, **DECAY)


def test_weight_decay_is_left_to_matrices(decayed):
    before = ModelSource().load_model(ModelSource().load_tokenizer()).hf.state_dict()
    after = decayed.checkpoint("step4")["state_dict"]
    for name, weight in before.items():
        factor = 1.0 if "norm" in name or "embed" in name or "lm_head" in name else 0.95**4
        torch.testing.assert_close(after[f"student.hf.{name}"], weight * factor, atol=2e-3, rtol=0, msg=name)


def test_a_run_with_groups_resumes_and_one_with_others_is_told_so(decayed, fit, every_step, tmp_path, capsys):
    begun = decayed.checkpoint_file("step2")
    resumed = fit(tmp_path / "same", every_step, **DECAY, ckpt_path=begun).checkpoint("step4")
    expected = decayed.checkpoint("step4")
    assert all(torch.equal(weight, resumed["state_dict"][name]) for name, weight in expected["state_dict"].items())
    other = fit_arguments(tmp_path / "other", (QUICKSTART,), {**DECAY, "model.decay": "all", "ckpt_path": begun})
    assert main(other) == 2
    assert re.search(r"1 groups of weights.*`model\.decay`.*has 2", capsys.readouterr().err)


@pytest.mark.slow
def test_groups_of_sharded_weights_are_those_of_whole_ones(decayed, spawn, every_step, tmp_path):
    two = {**DECAY, **FSDP2, "trainer.devices": 2, "data.batch_size": 2}
    sharded = spawn(tmp_path / "whole", every_step, **two)
    expected = decayed.checkpoint("step4")["state_dict"]
    found = sharded.checkpoint("step4")["state_dict"]
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=TOLERANCE, rtol=0, msg=name)
    begun = sharded.checkpoint_file("step2")
    resumed = spawn(tmp_path / "resumed", every_step, **two, ckpt_path=begun).checkpoint("step4")["state_dict"]
    assert all(torch.equal(weight, resumed[name]) for name, weight in found.items())


@pytest.mark.slow
def test_groups_of_one_process_go_on_in_shards(spawn, tmp_path):
    """An optimizer numbers its weights by its groups, whose order is not the model's."""
    rounds = {**DECAY, "trainer.max_epochs": 2}
    one = spawn(tmp_path / "one", **{**rounds, "data.batch_size": 4})
    settings = {**rounds, **FSDP2, "trainer.devices": 2, "data.batch_size": 2}
    two = spawn(tmp_path / "two", **settings, ckpt_path=one.checkpoint_file("round0"))
    found = two.checkpoint("round1")["state_dict"]
    for name, weight in one.checkpoint("round1")["state_dict"].items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0, msg=name)
