import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from caopd.errors import ConfigError
from caopd.models import LanguageModel, LoRA, ModelSource


@pytest.fixture
def hf():
    size = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**size, num_attention_heads=2, num_key_value_heads=2)).eval()


def adapted(hf):
    return {name.partition(".lora_")[0] for name, weight in hf.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj"], {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"}),
        (["layers.1.mlp.up_proj"], {"model.layers.1.mlp.up_proj"}),
        (
            ["model.layers.0.mlp.up_proj", "1.mlp.gate_proj"],
            {"model.layers.0.mlp.up_proj", "model.layers.1.mlp.gate_proj"},
        ),
    ],
)
def test_targets_are_names_or_their_ends(hf, targets, expected):
    LoRA(rank=2, target_modules=targets).add_to(hf)
    assert adapted(hf) == expected


def test_without_targets_all_linear_layers_but_the_head_are_adapted(hf):
    linear = {name for name, layer in hf.named_modules() if isinstance(layer, nn.Linear)}
    LoRA(rank=2).add_to(hf)
    assert adapted(hf) == linear - {"lm_head"}


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (["v_proj", "lm_head"], r"leave out lm_head\..*no gradient"),
        (["embed_tokens"], r"leave out model\.embed_tokens"),
        (["k_proj", "kproj", "down"], "there is no kproj, down"),
        (["self_attn.up_proj"], "not found"),
        (["norm"], "LlamaRMSNorm"),
        (["self_attn"], "LlamaAttention"),
        ([], r"but got \[\]"),
    ],
)
def test_targets_that_cannot_be_trained_are_refused(hf, targets, reason):
    with pytest.raises(ConfigError, match=rf"`target_modules` of LoRA .*LlamaForCausalLM.*{reason}") as refusal:
        LoRA(rank=2, target_modules=targets).add_to(hf)
    assert len(str(refusal.value)) < 600


def test_the_head_of_a_tied_model_is_refused_when_it_is_loaded(tokenizer):
    with pytest.raises(ConfigError, match="leave out lm_head"):
        ModelSource(lora=LoRA(target_modules=["lm_head", "o_proj"])).load_model(tokenizer)


def test_adapters_of_a_part_that_is_not_run_give_a_warning(hf, recwarn):
    hf.model.vision = nn.Linear(16, 16)
    LoRA(rank=2, target_modules=["q_proj", "vision"]).add_to(hf)
    with pytest.warns(UserWarning, match=r"2 of 6 weights .*model\.vision\.lora_A.*`target_modules`"):
        LanguageModel(hf, (2,), 0, 2).warn_untrained()


def test_every_adapter_of_the_embedded_model_is_trained(tokenizer, recwarn):
    model = ModelSource(lora=LoRA(rank=2)).load_model(tokenizer)
    assert not [warning for warning in recwarn if "to be trained" in str(warning.message)]
    assert all(weight.grad is None for weight in model.parameters())
    ids = torch.arange(20)[None]
    model.hf(ids).logits.sum().backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert len(trained) == 2 * 7 * 3
    assert all(weight.grad is not None for weight in trained)


@pytest.mark.parametrize("name", ["rank", "alpha"])
@pytest.mark.parametrize("value", [0, -3])
def test_impossible_sizes_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"`{name}` of LoRA.*at least 1.*{value}"):
        LoRA(**{name: value})
