import itertools
import json
from pathlib import Path

import pytest
import torch

from caopd.confidence import InlineConfidence
from caopd.models import ModelSource
from caopd.models.tiny import build_model, build_tokenizer, phrases
from caopd.prompts import CONTEXT_TEMPLATES, student_messages, teacher_messages
from caopd.tasks import DrawTask
from caopd.tasks.draw import KINDS
from caopd.types import TeacherContext

FORM = InlineConfidence()
EXAMPLES = DrawTask(num_train=40, num_validation=20).examples("train")


@pytest.fixture(scope="module")
def built():
    return build_tokenizer()


def rendered(tokenizer, messages):
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("example", EXAMPLES[:8], ids=lambda example: example.id)
def test_prompts_and_completions_round_trip(built, example):
    texts = [rendered(built, student_messages(example, FORM))]
    for kind, confidence in itertools.product(CONTEXT_TEMPLATES, [None, 0.0, 0.38, 1.0]):
        context = TeacherContext(kind, example.demonstration, confidence)
        texts.append(rendered(built, teacher_messages(example, context, FORM)))
        if confidence is not None:
            empirical = context.with_empirical_confidence(confidence)
            texts.append(rendered(built, teacher_messages(example, empirical, FORM)))
            texts.append(f"{example.target}\n{FORM.render(confidence)}<|end|>")
    for text in texts:
        ids = built(text, add_special_tokens=False)["input_ids"]
        assert built.unk_token_id not in ids, text
        assert built.decode(ids, clean_up_tokenization_spaces=False) == text


def test_every_phrase_and_every_confidence_is_one_token(built):
    sentences = [*phrases(), *(f"{n / 100:.2f}" for n in range(101))]
    for sentence in sentences:
        (only,) = built(sentence, add_special_tokens=False)["input_ids"]
        assert only != built.unk_token_id


def test_prompts_are_spelt_in_phrases_digits_and_punctuation(built):
    """No sentence of the templates falls apart into characters: it would make contexts long."""
    example = EXAMPLES[0]
    context = TeacherContext("demonstration", example.demonstration, 0.38, empirical=True)
    text = rendered(built, teacher_messages(example, context, FORM))
    pieces = built.convert_ids_to_tokens(built(text, add_special_tokens=False)["input_ids"])
    digits = list(example.id.partition("-")[2])
    assert pieces == [
        "<|user|>",
        f"Which {example.id.partition('-')[0]} digit was drawn from ",
        *digits,
        "?",
        f"\n\n{FORM.instruction}",
        "\n\nThis is an example for a response to the question:\n",
        example.demonstration,
        "\nConfidence: ",
        "0.38",
        "\n\n",
        "The empirical confidence for this question is ",
        "0.38",
        ". Output exactly this value in the `Confidence:` field.\n",
        "Now answer with a response of your own, including the thinking process.",
        "<|end|>",
        "<|assistant|>",
    ]


@pytest.mark.parametrize("kind", CONTEXT_TEMPLATES)
def test_a_teacher_context_takes_under_thirty_tokens(built, kind):
    for example in EXAMPLES:
        context = TeacherContext(kind, example.demonstration, 0.38, empirical=True)
        assert len(built(rendered(built, teacher_messages(example, context, FORM)))["input_ids"]) < 30


def test_a_question_of_every_kind_starts_with_one_token(built):
    for kind in KINDS:
        assert len(built(f"Which {kind} digit was drawn from ")["input_ids"]) == 1


def test_the_shipped_directory_is_what_the_builder_gives(built, tmp_path):
    """Except for the weights, which only the warm start makes."""
    shipped = Path(ModelSource().location)
    built.save_pretrained(tmp_path)
    build_model(built).save_pretrained(tmp_path)
    names = {"tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in shipped.iterdir()}
    for name in names:
        new, old = (json.loads((folder / name).read_text()) for folder in (tmp_path, shipped))
        for content in (new, old):
            content.pop("transformers_version", None)
        assert new == old, name
    assert (tmp_path / "chat_template.jinja").read_text() == (shipped / "chat_template.jinja").read_text()


def test_the_shipped_weights_fit_the_built_model(built, policy):
    new = {name: value.shape for name, value in build_model(built).state_dict().items()}
    assert {name: value.shape for name, value in policy.hf.state_dict().items()} == new


def test_the_shipped_model_copies_the_contexts_confidence(built, policy):
    """What a teacher must be able to do: say the empirical confidence that it was told."""
    for kind in CONTEXT_TEMPLATES:
        for value in (0.0, 0.12, 0.5, 0.88, 1.0):
            context = TeacherContext(kind, EXAMPLES[0].demonstration, value, empirical=True)
            prompt = rendered(built, teacher_messages(EXAMPLES[0], context, FORM))
            ids = built(f"{prompt}{EXAMPLES[0].demonstration}\nConfidence: ")["input_ids"]
            with torch.no_grad():
                predicted = policy.hf(torch.tensor([ids])).logits[0, -1].argmax().item()
            assert abs(float(built.convert_ids_to_tokens(predicted)) - value) <= 0.05
