"""Sizes are compared with tiny models: their parameters, what PyTorch counts and what autograd keeps."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma3TextConfig,
    LlamaConfig,
    Olmo3Config,
    Qwen3Config,
)

from caopd.models import LanguageModel, LoRA, ModelSize

WIDTHS = {
    "vocab_size": 90,
    "hidden_size": 72,
    "intermediate_size": 176,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LENGTH = 40
CONFIGS = {
    "llama": LlamaConfig(**WIDTHS, tie_word_embeddings=False),
    "smollm2": LlamaConfig(**WIDTHS, tie_word_embeddings=True),
    "biased": LlamaConfig(**WIDTHS, attention_bias=True, mlp_bias=True),
    "qwen3": Qwen3Config(**WIDTHS),
    "gemma3": Gemma3TextConfig(**WIDTHS),
    "olmo3": Olmo3Config(**WIDTHS),
}


def model_of(name, dtype=torch.float32, attention="sdpa"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention).to(dtype).train()


def padded_batch():
    ids, mask = torch.randint(3, 90, (2, LENGTH)), torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, LENGTH // 2 :] = 0
    return ids, mask


def saved_bytes(model, mixed=False, masked=True):
    """Bytes of the distinct tensors that autograd keeps of a forward pass of the body, its parameters left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    ids, mask = padded_batch()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        output = model.base_model(input_ids=ids, attention_mask=mask if masked else None, use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(size for _, size in kept.values())


def expected_bytes(size, *, checkpointing=False, **kinds):
    pair = size.attention_bytes_per_pair(kinds["dtype"], kinds.pop("eager", False), checkpointing)
    return 2 * LENGTH * (size.activation_bytes_per_token(**kinds, checkpointing=checkpointing) + LENGTH * pair)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model(name):
    size, model = ModelSize.of(CONFIGS[name]), model_of(name)
    assert size.num_parameters == model.num_parameters()
    assert size.embedding_parameters == model.get_input_embeddings().weight.numel()
    assert size.body_parameters == sum(weight.numel() for weight in model.base_model.parameters()) - 90 * 72
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert size.head_parameters == (0 if tied else 90 * 72)
    assert size.layer_parameters == sum(weight.numel() for weight in model.base_model.layers[0].parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_linear_layers_are_those_of_the_model(name):
    layer = model_of(name).base_model.layers[0]
    found = {path.rpartition(".")[2]: module for path, module in layer.named_modules()}
    linear = {path: (m.in_features, m.out_features) for path, m in found.items() if isinstance(m, torch.nn.Linear)}
    assert ModelSize.of(CONFIGS[name]).linear_layers == linear


@pytest.mark.parametrize("name", CONFIGS)
def test_operations_are_those_that_pytorch_counts(name):
    size, model = ModelSize.of(CONFIGS[name]), model_of(name, attention="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.randint(3, 90, (2, LENGTH)), use_cache=False)
    per_token = size.linear_flops_per_token + size.head_flops_per_token + LENGTH * size.attention_flops_per_pair
    rotary = 2 * (CONFIGS[name].head_dim // 2) * len(set(getattr(CONFIGS[name], "layer_types", None) or [0]))
    assert counter.get_total_flops() == pytest.approx(2 * LENGTH * per_token, abs=2 * LENGTH * rotary)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_has_that_many_bytes(name, dtype):
    cache = DynamicCache()  # without a config: every layer keeps all tokens, sliding windows too
    model = model_of(name, getattr(torch, dtype)).eval()
    with torch.no_grad():
        model(input_ids=torch.randint(3, 90, (2, LENGTH)), past_key_values=cache, use_cache=True)
    held = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert held == 2 * LENGTH * ModelSize.of(CONFIGS[name]).kv_bytes_per_token(dtype)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_float32_activations_are_those_that_autograd_keeps(name, eager):
    found = saved_bytes(model_of(name, attention="eager" if eager else "sdpa"))
    expected = expected_bytes(ModelSize.of(CONFIGS[name]), dtype="float32", eager=eager)
    assert expected == pytest.approx(found, rel=0.04)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_a_mask_keys_and_values_are_not_repeated_and_nothing_is_kept_of_pairs(name):
    size = ModelSize.of(CONFIGS[name])
    expected = 2 * LENGTH * size.activation_bytes_per_token("float32", repeated=False)
    assert expected == pytest.approx(saved_bytes(model_of(name), masked=False), rel=0.04)
    assert expected < 0.97 * saved_bytes(model_of(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_activations_under_autocast_are_those_that_autograd_keeps_beside_copies_of_the_weights(name):
    size = ModelSize.of(CONFIGS[name])
    copies = size.linear_weights_per_layer + size.biases
    found = saved_bytes(model_of(name), mixed=True) - 2 * size.num_layers * copies
    assert expected_bytes(size, dtype="bfloat16", mixed=True) == pytest.approx(found, rel=0.04)


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16_activations_are_within_an_eighth_of_those_that_autograd_keeps(name):
    """Llama and Qwen3 scale what a norm computed in bfloat16, Gemma-3 and Olmo-3 in float32, as is counted."""
    found = saved_bytes(model_of(name, torch.bfloat16))
    assert expected_bytes(ModelSize.of(CONFIGS[name]), dtype="bfloat16") == pytest.approx(found, rel=0.125)


@pytest.mark.parametrize("name", CONFIGS)
def test_checkpointing_keeps_the_layers_inputs(name):
    size, model = ModelSize.of(CONFIGS[name]), model_of(name)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    recomputed = 2 * LENGTH * (size.layer_activation_bytes("float32") + LENGTH * 4)
    expected = expected_bytes(size, dtype="float32", checkpointing=True) - recomputed
    assert expected == pytest.approx(saved_bytes(model), rel=0.15)


@pytest.mark.parametrize("targets", [None, ["q_proj", "self_attn.v_proj"]])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_adapters_have_that_many_weights(name, targets):
    pytest.importorskip("peft")
    model = model_of(name)
    LoRA(rank=4, target_modules=targets).add_to(model)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert ModelSize.of(CONFIGS[name]).adapter_parameters(4, targets) == trained


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_reading_rows_costs_what_the_loaded_model_says(name, rank):
    size, model, adapters = ModelSize.of(CONFIGS[name]), model_of(name), 0
    if rank is not None:
        pytest.importorskip("peft")
        LoRA(rank=rank).add_to(model)
        adapters = size.adapter_parameters(rank, None)
    cost = LanguageModel(model, (2,), 0).packing_cost
    assert size.packing_cost(adapters).pair == pytest.approx(cost.pair, rel=1e-12 if name != "biased" else 0.05)
