import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from caopd.errors import ModelError
from caopd.models import LanguageModel, ModelSource, stop_token_ids
from caopd.models.packing import pack

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def wrapped(model_class, config_class, **arguments):
    torch.manual_seed(0)
    hf = model_class(config_class(**SMALL, **arguments)).eval()
    with torch.no_grad():
        # As large as the logits of trained models.
        hf.get_output_embeddings().weight.normal_(std=2.0)
    return LanguageModel(hf, (2,), 0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "classes", [(LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)], ids=["llama", "qwen2"]
)
def test_a_plain_head_is_accepted(classes, tied):
    wrapped(*classes, tie_word_embeddings=tied).check_head()


@pytest.mark.parametrize(
    ("classes", "arguments"),
    [
        ((GraniteForCausalLM, GraniteConfig), {"logits_scaling": 8.0}),
        ((CohereForCausalLM, CohereConfig), {"logit_scale": 0.0625}),
        ((Gemma2ForCausalLM, Gemma2Config), {"final_logit_softcapping": 10.0, "head_dim": 8}),
    ],
    ids=["divided", "multiplied", "capped"],
)
def test_scaled_and_capped_logits_are_refused(classes, arguments):
    with pytest.raises(ModelError, match=rf"{classes[0].__name__}.*hidden states times the head"):
        wrapped(*classes, **arguments).check_head()


@pytest.mark.parametrize(
    ("classes", "arguments", "name"),
    [
        ((GraniteForCausalLM, GraniteConfig), {"logits_scaling": 1.005}, "logits_scaling = 1.005"),
        ((Gemma2ForCausalLM, Gemma2Config), {"head_dim": 8}, "final_logit_softcapping = 30.0"),
    ],
)
def test_a_scale_or_cap_that_hardly_shows_is_refused_by_its_name(classes, arguments, name):
    model = wrapped(*classes, **arguments)
    with torch.no_grad():
        model.hf.get_output_embeddings().weight.mul_(0.01)  # logits far below the cap
    with pytest.raises(ModelError, match=rf"config\.json has {name}"):
        model.check_head()


def test_factors_of_one_are_none():
    wrapped(GraniteForCausalLM, GraniteConfig, logits_scaling=1.0).check_head()
    wrapped(Gemma2ForCausalLM, Gemma2Config, head_dim=8, final_logit_softcapping=None).check_head()


def test_a_bias_of_the_head_is_refused():
    model = wrapped(PhiForCausalLM, PhiConfig)
    with torch.no_grad():
        model.hf.lm_head.bias.fill_(0.5)
    with pytest.raises(ModelError, match="PhiForCausalLM"):
        model.check_head()


def test_the_head_function_sees_what_predicts_the_chosen_tokens(policy):
    """Hidden states times head are the logits at the predictors, row by row, whatever the padding."""
    rows = [[3, 120, 125, 2], [4, 130, 15, 57, 126, 2, 9]]
    batch = pack([rows[0][:2], rows[1][:5]], [rows[0][2:], rows[1][5:]], 0)
    logits_TV = policy(batch, lambda hidden, head: hidden @ head.T)
    alone = [policy.hf(torch.tensor([row])).logits[0] for row in rows]
    expected = torch.cat([alone[0][1:3], alone[1][4:6]])
    torch.testing.assert_close(logits_TV, expected, rtol=1e-4, atol=1e-4)
    assert logits_TV.requires_grad
    hidden_TH, head_VH = policy.hidden_and_head(batch)
    torch.testing.assert_close(hidden_TH @ head_VH.T, expected, rtol=1e-4, atol=1e-4)
    assert not hidden_TH.requires_grad
    assert not head_VH.requires_grad


@pytest.mark.parametrize(
    ("configured", "expected"),
    [(2, (2,)), ([15, 2, 3], (15, 2, 3)), ([15, 3], (15, 3, 2)), (None, (2,)), ([3, 3], (3, 2))],
)
def test_stop_ids_are_those_of_the_generation_config_and_the_tokenizers(tokenizer, configured, expected):
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.generation_config.eos_token_id = configured
    assert stop_token_ids(model, tokenizer) == expected


def test_stop_ids_are_read_from_the_models_directory(tmp_path, tokenizer):
    directory = Path(shutil.copytree(ModelSource().location, tmp_path / "model"))
    path = directory / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [15, 57]}))
    assert ModelSource(str(directory)).load_model(tokenizer).stop_token_ids == (15, 57, 2)


def test_a_model_that_never_stops_is_refused(byte_level_tokenizer):
    import copy

    tokenizer = copy.deepcopy(byte_level_tokenizer)
    tokenizer.eos_token = None
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match="end-of-sequence"):
        stop_token_ids(model, tokenizer)
