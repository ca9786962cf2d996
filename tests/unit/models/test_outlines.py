"""A model that is made without weights, and given those of the loaded one, is the loaded one."""

import pytest
import torch
from torch import nn

from caopd.errors import ModelError
from caopd.models import LanguageModel, LoRA, ModelSource
from caopd.models.outlines import ModelFacts, all_weights
from caopd.models.packing import pack
from tests.integration.test_families import FAMILIES, SIZES


@pytest.fixture
def saved(tmp_path, tokenizer):
    """Saves an untrained model of a family."""

    def save(family):
        model_class, config_class, options = FAMILIES[family]
        torch.manual_seed(0)
        special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
        model_class(config_class(**SIZES, **options, **special, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return ModelSource(str(tmp_path))

    return save


def filled(outline, loaded):
    outline.to_empty(device="cpu")
    outline.hf.tie_weights()  # `to_empty` keeps ties of sharded weights alone
    with torch.no_grad():
        for mine, its in zip(all_weights(outline).values(), all_weights(loaded).values(), strict=True):
            mine.copy_(its)
    return outline


def logits(model):
    sequences = pack([(4, 7, 9), (5, 6)], [(8, 11, 12), (9, 10, 3, 2)], 0)
    return model(sequences, lambda hidden, head: hidden @ head.T)


SOURCES = {
    "embedded": lambda saved: ModelSource(),
    "bfloat16": lambda saved: ModelSource(dtype="bfloat16"),
    "lora": lambda saved: ModelSource(lora=LoRA(rank=2), dtype="bfloat16", gradient_checkpointing=True),
    **{family: lambda saved, family=family: saved(family) for family in FAMILIES},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_an_outline_with_the_weights_of_a_model_is_that_model(kind, saved, tokenizer):
    source = SOURCES[kind](saved)
    loaded = source.load_model(tokenizer)
    outline = source.outline(ModelFacts.of(loaded))
    assert all(weight.is_meta for weight in all_weights(outline).values())
    assert (outline.training, outline.hf.is_gradient_checkpointing) == (False, source.gradient_checkpointing)
    outline = filled(outline, loaded)
    for name in ("stop_token_ids", "pad_token_id", "can_share", "lora_rank", "packing_cost"):
        assert getattr(outline, name) == getattr(loaded, name), name
    assert {name: w.requires_grad for name, w in outline.named_parameters()} == {
        name: w.requires_grad for name, w in loaded.named_parameters()
    }
    ties = (
        model.hf.get_output_embeddings().weight is model.hf.get_input_embeddings().weight for model in (loaded, outline)
    )
    assert len(set(ties)) == 1
    assert torch.equal(logits(outline), logits(loaded))


def test_a_model_that_does_not_follow_from_its_config_is_refused(tokenizer):
    loaded = ModelSource().load_model(tokenizer)
    loaded.hf.model.norm.bias = nn.Parameter(torch.zeros(64))
    with pytest.raises(ModelError, match=r"'embedded' to follow from its config.*bias.*`trainer.strategy`"):
        ModelSource().outline(ModelFacts.of(loaded))


def test_tensors_that_are_no_weights_are_refused(tokenizer, policy):
    outline = ModelSource().outline(ModelFacts.of(policy))
    outline.hf.model.norm.scale = torch.ones(64)
    with pytest.raises(ModelError, match=r"as parameters or buffers.*LlamaRMSNorm\.scale"):
        ModelFacts.of(policy).give_to(outline, "embedded")


def test_what_a_check_has_found_is_handed_on(policy):
    facts = ModelFacts.of(policy)
    unshared = ModelFacts(facts.stop_token_ids, facts.pad_token_id, False, facts.weights)
    made: LanguageModel = ModelSource().outline(unshared)
    assert facts.can_share
    assert not made.can_share
