"""Rows in which prompts stand once: against every sequence read by itself, and against visibility spelled out."""

import random

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3NextConfig,
)

from caopd.models import LanguageModel, LoRA
from caopd.models.layout import PackingCost
from caopd.models.packing import attention_masks, can_share, pack

SIZES = {
    **{"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0},
}
WINDOW = 7
"""Shorter than prompts with their completions, so that it cuts."""
LAYERS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}
ARCHITECTURES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    "olmo3": (Olmo3ForCausalLM, Olmo3Config, LAYERS),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, LAYERS),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": WINDOW}),
}
SHARED = PackingCost(pair=0.0)


def model_of(name, attention="sdpa", dtype=torch.float64):
    model_class, config_class, options = ARCHITECTURES[name]
    torch.manual_seed(0)
    hf = model_class._from_config(config_class(**SIZES, **options), attn_implementation=attention)
    return LanguageModel(hf.to(dtype).eval(), (2,), 0)


def sequences(seed=0):
    """Three prompts in turn; the first has four completions, one of them without a token, the last a single one."""
    rng = random.Random(seed)

    def ids(length):
        return [rng.randrange(3, 60) for _ in range(length)]

    first, second, third = ids(9), ids(1), ids(4)
    return [
        *((first, ids(3)), (second, ids(12)), (first, ids(1)), (first, []), (second, ids(5))),
        *((third, ids(2)), (first, ids(11))),
    ]


def outcome(model, batches):
    """Logits before every completion token, in order, and the gradients of a weighted sum of their squares."""
    model.zero_grad()
    found = [model(batch, lambda hidden_TH, head_VH: hidden_TH @ head_VH.T) for batch in batches]
    logits_TV = torch.cat(found)
    weight_T1 = torch.linspace(-1, 1, len(logits_TV), dtype=torch.float64)[:, None]
    (weight_T1 * logits_TV.double().square()).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return logits_TV.detach(), gradients


def assert_same(found, expected, tolerance, of_values=None):
    """Transformers' norms compute in float32, so a prompt's gradient is rounded once, or once per sequence."""
    of_values = of_values or tolerance
    torch.testing.assert_close(found[0], expected[0], rtol=of_values, atol=of_values)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=tolerance * scale, msg=name)


def alone():
    return [pack([prompt], [completion], 0) for prompt, completion in sequences()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_values_and_gradients_are_those_of_every_sequence_read_by_itself(name, attention):
    model = model_of(name, attention)
    prompts, completions = zip(*sequences(), strict=True)
    shared, plain = pack(prompts, completions, 0, SHARED), pack(prompts, completions, 0)
    assert (shared.is_plain, plain.is_plain) == (False, True)
    assert shared.ids_BL.numel() < plain.ids_BL.numel() / 2
    expected = outcome(model, alone())
    for batch in (shared, plain):  # the softmax of eager attention is in float32
        exact = attention == "sdpa"
        assert_same(outcome(model, [batch]), expected, 1e-6 if exact else 1e-5, of_values=1e-12 if exact else 1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 6e-2)], ids=str)
def test_in_coarser_floats_they_differ_by_rounding(dtype, tolerance):
    model = model_of("gemma3", dtype=dtype)
    prompts, completions = zip(*sequences(), strict=True)
    assert_same(outcome(model, [pack(prompts, completions, 0, SHARED)]), outcome(model, alone()), tolerance)


@pytest.mark.parametrize("adapted", [False, True], ids=["all weights", "LoRA"])
def test_checkpointing_and_adapters_change_nothing(adapted):
    model = model_of("qwen3").train()
    if adapted:
        pytest.importorskip("peft")
        LoRA(rank=2).add_to(model.hf)
        model.double()
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.2)  # at zero, no gradient would reach the other of a pair
    expected = outcome(model, alone())
    model.hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    prompts, completions = zip(*sequences(), strict=True)
    assert_same(outcome(model, [pack(prompts, completions, 0, SHARED)]), expected, 1e-6, of_values=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pair", [0.0, 0.02, 0.1])
def test_every_token_sees_its_own_prompt_and_what_precedes_it(seed, pair):
    """The mask against sequences that are followed token by token through the rows."""
    prompts, completions = zip(*sequences(seed), strict=True)
    rows = pack(prompts, completions, 0, PackingCost(pair))
    config = LlamaConfig(**SIZES)
    config._attn_implementation = "sdpa"
    mask = attention_masks(rows, config, torch.float32)
    length = rows.ids_BL.shape[1]
    before_T = iter(rows.predictor_T.tolist())
    for prompt, completion in zip(prompts, completions, strict=True):
        if not completion:
            continue
        predictors = [next(before_T) for _ in completion]
        row = predictors[0] // length
        assert {each // length for each in predictors} == {row}
        columns = [each % length for each in predictors]
        trunk = range(columns[0] - len(prompt) + 1, columns[0] + 1)
        assert rows.ids_BL[row, trunk].tolist() == list(prompt)
        assert rows.position_BL[row, trunk].tolist() == list(range(len(prompt)))
        own = [*columns[1:], columns[-1] + 1] if len(columns) > 1 else [seen_next(rows, row, columns[0], completion)]
        assert rows.ids_BL[row, own].tolist() == list(completion)
        if rows.is_plain:
            assert mask is None
            continue
        for number, column in enumerate(own):
            seen = mask[row, 0, column].nonzero()[:, 0].tolist()
            assert seen == [*trunk, *own[: number + 1]]
            assert rows.position_BL[row, column] == len(prompt) + number
    assert next(before_T, None) is None


def seen_next(rows, row, trunk_end, completion):
    """The column of a completion of one token, which predicts nothing: a branch of that prompt with one token."""
    branch_L, trunk_L = rows.branch_BL[row], rows.trunk_BL[row]
    single_L = (branch_L[:, None] == branch_L).sum(1) == 1
    here = (single_L & (trunk_L == branch_L[trunk_end])).nonzero()[:, 0].tolist()
    return next(n for n in here if n != trunk_end and [rows.ids_BL[row, n].item()] == list(completion))


def test_padding_is_seen_by_nothing_else_and_its_share_is_known():
    rows = pack([[1, 2], [1, 2], [3]], [[4], [5], [6]], 9, PackingCost(pair=1e9))
    assert rows.is_plain
    assert rows.ids_BL.tolist() == [[1, 2, 4], [1, 2, 5], [3, 6, 9]]
    assert rows.branch_BL.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, -1]]
    assert (float(rows.share_of_tokens), rows.num_positions) == (pytest.approx(8 / 9), 9)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(**SIZES), True),
        (Gemma3TextConfig(**SIZES, **LAYERS), True),
        (Qwen3NextConfig(**SIZES, layer_types=["linear_attention", "full_attention", "linear_attention"]), False),
    ],
    ids=["full", "sliding", "linear"],
)
def test_only_models_of_nothing_but_attention_share_prompts(config, expected):
    config._attn_implementation = "sdpa"
    assert can_share(config) == expected
    config._attn_implementation = "flash_attention_2"
    assert not can_share(config)


def test_a_model_that_heeds_no_mask_is_noticed_and_reads_every_prompt_by_itself():
    class Heedless(LlamaForCausalLM):
        """Reads what precedes a token in its row, whatever the mask says."""

        @property
        def base_model(self):
            def read(input_ids, attention_mask, **others):
                return LlamaForCausalLM.base_model.fget(self)(input_ids=input_ids, **others)

            return read

    torch.manual_seed(0)
    hf = LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_hidden_layers": 16})).eval()
    for dtype in (torch.float32, torch.bfloat16):  # in 16 bits rounding alone makes a difference of 2 %
        hf.__class__ = LlamaForCausalLM
        sound = LanguageModel(hf.to(dtype), (2,), 0)
        sound.settle_packing()
        assert sound.packing_cost is not None
        hf.__class__ = Heedless
        model = LanguageModel(hf, (2,), 0)
        with pytest.warns(UserWarning, match="Heedless does not compute the same where several completions follow"):
            model.settle_packing()
        assert model.packing_cost is None


def test_a_pair_costs_what_the_architecture_says():
    """Counted by hand: 2 products of 32 for each of 3 layers, over twice the weights of the layers."""
    model = model_of("llama")
    projections, mlp = 32 * (32 + 16 + 16 + 32), 3 * 32 * 48
    weights = 3 * (projections + mlp + 2 * 32) + 32
    assert model.packing_cost == PackingCost(pytest.approx(1.4 * 4 * 3 * 32 / (2 * weights)))
