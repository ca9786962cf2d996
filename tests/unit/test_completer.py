import contextlib

import pytest

from caopd.completer import Completer, Verification, check_versions
from caopd.confidence import InlineConfidence, TagConfidence
from caopd.encoding import SampleEncoder
from caopd.errors import RolloutError
from caopd.phases import PhaseClock
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.tasks import DrawTask
from caopd.types import ConfidenceOutcome, Example, Rollout, StopReason
from caopd.verifiers import ExactMatch, MultipleChoice


def rollout_of(text, version=0):
    return Rollout((1,), text, StopReason.EOS, (-1.0,), version)


@pytest.mark.parametrize("text", ["6\nConfidence: 0.90", "6\n\n**Confidence:** 90%\n", "Confidence: 0.90\n6"])
def test_the_answer_is_verified_without_the_confidence_segment(text):
    verified = Verification(ExactMatch(), InlineConfidence())(rollout_of(text), Example("1", "Q", "6"))
    assert verified.verdict.correct
    assert verified.reading.value == 0.9
    assert verified.rollout.text == text


def test_only_the_tasks_own_format_is_read():
    text = "<answer>B</answer>\nConfidence: 0.90"
    verified = Verification(MultipleChoice(), TagConfidence())(rollout_of(text), Example("1", "Q", "B"))
    assert verified.verdict.correct
    assert verified.reading.outcome is ConfidenceOutcome.MISSING


def test_rollouts_of_other_weights_are_refused():
    check_versions([[rollout_of("a", 3)], [rollout_of("b", 3)]], expected=3)
    check_versions([], expected=3)
    with pytest.raises(RolloutError, match=r"policy version 3.*\[2, 3\].*stale"):
        check_versions([[rollout_of("a", 3)], [rollout_of("b", 2)]], expected=3)


def test_completions_are_verified_against_their_own_example(tokenizer, policy):
    examples = DrawTask(num_train=3).examples("train")
    prompts = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, 8).student_prompts(examples)
    phases, within = [], []

    @contextlib.contextmanager
    def precision():
        within.append("precision")
        yield

    engine = TransformersEngine()
    engine.start(tokenizer)
    clock = PhaseClock(phases.append)
    completer = Completer(engine, Verification(ExactMatch(), InlineConfidence()), clock, precision)
    completer.sync(policy, version=4)
    requests = [RolloutRequest(prompt, seed) for seed, prompt in enumerate(prompts)]
    groups = completer.complete(examples, requests, 2, Sampling(max_new_tokens=8))
    assert [len(group) for group in groups] == [2, 2, 2]
    for example, group in zip(examples, groups, strict=True):
        for verified in group:
            answer = verified.rollout.text.partition("\n")[0]
            assert verified.verdict.correct == (answer == example.target)
            assert verified.rollout.policy_version == 4
    assert phases == ["sync", "rollout", "verify"]
    assert within == ["precision"]
    seconds = clock.take()
    assert set(seconds) == {"sync", "rollout", "verify"}
    assert clock.take() == {}


def test_a_stale_engine_is_noticed(tokenizer, policy):
    class Stale(TransformersEngine):
        def sync(self, policy, version):
            super().sync(policy, version - 1)

    engine = Stale()
    engine.start(tokenizer)
    clock = PhaseClock(lambda phase: None)
    completer = Completer(engine, Verification(ExactMatch(), InlineConfidence()), clock, contextlib.nullcontext)
    completer.sync(policy, version=4)
    request = RolloutRequest(tuple(tokenizer("6")["input_ids"]), 0)
    with pytest.raises(RolloutError, match="stale"):
        completer.complete([Example("1", "Q", "6")], [request], 1, Sampling(max_new_tokens=2))
