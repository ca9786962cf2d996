import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from caopd.models import LanguageModel, LoRA, ModelSource, make_teacher, update_teacher
from caopd.models.weights import fingerprint, inference_weights


@pytest.fixture
def adapted(tokenizer):
    """The embedded model with adapters that change its output."""
    student = ModelSource(lora=LoRA(rank=3, alpha=12)).load_model(tokenizer)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "lora_" in name:
                weight.copy_(0.1 * torch.randn_like(weight))
    return student


def logits(hf):
    with torch.no_grad():
        return hf(torch.arange(20)[None]).logits


def loaded(policy, **settings):
    """A plain model that takes nothing but what an engine would be sent."""
    plain = type(ModelSource().load_model(ModelSource().load_tokenizer()).hf)(policy.hf.config)
    weights = dict(inference_weights(policy, torch.float32, **settings))
    plain.load_state_dict(weights)
    return plain.eval()


def test_the_weights_make_the_same_model(policy):
    weights = dict(inference_weights(policy, torch.float32))
    assert "lm_head.weight" in weights, "a tied head is sent under its own name"
    torch.testing.assert_close(logits(loaded(policy)), logits(policy.hf), rtol=0, atol=0)


def test_weights_are_converted(policy):
    for name, weight in inference_weights(policy, torch.bfloat16):
        assert weight.dtype == torch.bfloat16, name


def test_adapters_are_merged_into_what_they_adapt(adapted, policy):
    torch.testing.assert_close(logits(loaded(adapted)), logits(adapted.hf), rtol=0, atol=1e-4)
    assert (logits(adapted.hf) - logits(policy.hf)).abs().max() > 0.1, "the adapters do something"
    assert set(dict(inference_weights(adapted, torch.float32))) == set(dict(inference_weights(policy, torch.float32)))


def test_separate_adapters_leave_the_base_as_it_is(adapted, policy):
    weights = dict(inference_weights(adapted, torch.float32, separate_adapters=True))
    adapters = {name: weight for name, weight in weights.items() if ".lora_" in name}
    assert len(adapters) == 2 * 7 * 3  # two matrices, seven layers of a block, three blocks
    assert all(name.startswith("base_model.model.model.layers.") for name in adapters)
    for name, weight in inference_weights(policy, torch.float32):
        assert torch.equal(weights[name], weight), name


def test_only_adapters_are_trained_and_averaged(adapted):
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    teacher = make_teacher(adapted)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight += 1.0
    before = {name: weight.clone() for name, weight in teacher.named_parameters()}
    update_teacher(teacher, adapted, 0.25)
    student = dict(adapted.named_parameters())
    for name, weight in teacher.named_parameters():
        if name in trained:
            torch.testing.assert_close(weight, before[name] + 0.25)
            assert weight is not student[name]
        else:
            assert weight is student[name], "frozen weights are held once"


def test_adapters_are_merged_into_layers_that_are_stored_transposed():
    """As GPT-2's are; its attention's output layer is square, where a wrong way round goes unnoticed."""
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    hf = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=None, eos_token_id=2)).eval()
    with pytest.warns(UserWarning, match="fan_in_fan_out"):  # peft's own
        LoRA(rank=2, alpha=8, target_modules=["attn.c_proj", "mlp.c_fc"]).add_to(hf)
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    plain = GPT2LMHeadModel(hf.config)
    plain.load_state_dict(dict(inference_weights(LanguageModel(hf, (2,), 0, 2), torch.float32)))
    torch.testing.assert_close(logits(plain.eval()), logits(hf), rtol=0, atol=1e-4)


def test_every_change_in_place_changes_the_fingerprint(policy):
    student = copy.deepcopy(policy)
    seen = [fingerprint(student)]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)

    def step():
        student.hf(torch.arange(9)[None]).logits.sum().backward()
        optimizer.step()

    def double():
        with torch.no_grad():
            next(student.parameters()).mul_(2.0)

    def replace():
        student.hf.lm_head.weight = nn.Parameter(student.hf.lm_head.weight.detach().clone())

    for change in (step, step, double, lambda: student.load_state_dict(policy.state_dict()), replace):
        change()
        seen.append(fingerprint(student))
    assert len(set(seen)) == len(seen)


def test_reading_leaves_the_fingerprint(policy):
    before = fingerprint(policy)
    logits(policy.hf)
    dict(inference_weights(policy, torch.float32))
    make_teacher(policy)
    assert fingerprint(policy) == before
