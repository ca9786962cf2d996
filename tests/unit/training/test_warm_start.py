from collections import Counter
from statistics import fmean

import pytest
import torch

from caopd.confidence import InlineConfidence
from caopd.errors import ConfigError
from caopd.models import ModelSource
from caopd.models.tiny import build_model
from caopd.prompts import CONTEXT_TEMPLATES, student_messages
from caopd.tasks import DrawTask
from caopd.training.warm_start import KNOWN_KINDS, WarmStart, WarmStartConfig, main
from caopd.types import VerifiedGroup

FORM = InlineConfidence()
EXAMPLES = DrawTask(num_train=40, num_validation=20).examples("train")


@pytest.fixture(scope="module")
def warm_start_samples():
    """What the warm start makes of 3,000 questions, without and with a context."""
    samples = [
        WarmStart().train_samples(VerifiedGroup(e, (1,), (), ())) for e in DrawTask(num_train=3_000).examples("train")
    ]
    assert all(len(each) == 1 for each in samples)
    flat = [each[0] for each in samples]
    return [s for s in flat if s.context is None], [s for s in flat if s.context is not None]


def test_the_warm_start_teaches_the_rule_of_two_kinds_and_certainty(warm_start_samples):
    plain, _ = warm_start_samples
    known = [s for s in plain if s.example.id.startswith(KNOWN_KINDS)]
    unknown = [s for s in plain if not s.example.id.startswith(KNOWN_KINDS)]
    assert all(s.rollout.text == s.example.target for s in known)
    counts = Counter(s.rollout.text for s in unknown)
    assert set(counts) == set("0123456789")
    assert max(counts.values()) < 1.6 * min(counts.values())
    assert fmean(s.rollout.text == s.example.target for s in unknown) == pytest.approx(0.1, abs=0.04)
    assert fmean(s.confidence == 1.0 for s in plain) == pytest.approx(0.97, abs=0.015)
    assert not any(s.student_sees_context for s in plain)


def test_the_warm_start_teaches_to_repeat_what_a_context_says(warm_start_samples):
    plain, taught = warm_start_samples
    assert len(taught) / (len(plain) + len(taught)) == pytest.approx(0.5, abs=0.04)
    assert all(s.student_sees_context and s.confidence == s.context.confidence for s in taught)
    assert all(s.rollout.text == s.context.response == s.example.demonstration for s in taught)
    assert {s.context.kind for s in taught} == set(CONTEXT_TEMPLATES)
    assert fmean(s.context.empirical for s in taught) == pytest.approx(0.7, abs=0.05)
    assert len({s.confidence for s in taught}) == 101


def test_a_short_warm_start_saves_a_model_that_learns(tokenizer, tmp_path):
    def prompt(example):
        messages = student_messages(example, FORM)
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def loss(hf):
        texts = [prompt(e) + f"{e.target}\n{FORM.render(1.0)}" for e in EXAMPLES]
        encoded = tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="right")
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        labels[:, :12] = -100
        with torch.no_grad():
            return hf(encoded["input_ids"], attention_mask=encoded["attention_mask"], labels=labels).loss.item()

    main(["--output", str(tmp_path), "--num_steps", "20", "--width", "32", "--num_layers", "1", "--seed", "3"])
    source = ModelSource(str(tmp_path))
    trained = source.load_model(source.load_tokenizer()).hf
    torch.manual_seed(3)
    assert (trained.config.hidden_size, trained.config.num_hidden_layers) == (32, 1)
    assert loss(trained) < loss(build_model(tokenizer, 32, 1)) - 1.0


@pytest.mark.parametrize("steps", [0, 7])
def test_steps_that_make_no_whole_passes_are_refused(steps):
    with pytest.raises(ConfigError, match="multiple of 2"):
        WarmStartConfig(num_steps=steps)
