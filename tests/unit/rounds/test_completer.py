import contextlib
from dataclasses import replace

import pytest

from caopd.confidence import InlineConfidence
from caopd.errors import RolloutError
from caopd.models import ModelSource
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.rounds.completer import Completer, check_groups, check_versions
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.parity import ParityConfig
from caopd.rounds.phases import PhaseClock
from caopd.tasks import DrawTask
from caopd.types import AnswerOutcome, ConfidenceOutcome, Example, Rollout, StopReason, Verdict, VerifiedRollout
from caopd.verifiers import ExactMatch


def rollout_of(text, version=0):
    return Rollout((1,), text, StopReason.EOS, (-1.0,), version)


def test_rollouts_of_other_weights_are_refused():
    check_versions([[rollout_of("a", 3)], [rollout_of("b", 3)]], expected=3)
    check_versions([], expected=3)
    with pytest.raises(RolloutError, match=r"policy version 3.*\[2, 3\].*stale"):
        check_versions([[rollout_of("a", 3)], [rollout_of("b", 2)]], expected=3)


def test_an_engine_that_returns_something_else_is_named():
    one, empty = rollout_of("a"), replace(rollout_of("a"), token_ids=(), logprobs=())
    check_groups([[one, empty]] * 3, 3, 2, "my.Engine")
    for groups, found in (
        ([[one, one]] * 2, "2 groups of 2 rollouts"),
        ([[one, one], [one, one], [one]], "3 groups of 1, 2 rollouts"),
        ([], "0 groups of no rollouts"),
    ):
        with pytest.raises(RolloutError, match=rf"my\.Engine to return 3 groups of 2 rollouts.*{found}.*`generate`"):
            check_groups(groups, 3, 2, "my.Engine")
    short = replace(one, token_ids=(1, 2))
    with pytest.raises(RolloutError, match=r"my\.Engine .*rollout of prompt 1 has 2 ids and 1 log-probabilities"):
        check_groups([[one, one], [one, short]], 2, 2, "my.Engine")


class Earns:
    def __init__(self, error=None):
        self.error = error

    def __call__(self, example, verified):
        if self.error is not None and verified.rollout.text == "b":
            raise self.error
        return len(verified.rollout.text)


def test_rewards_are_kept_with_the_rollout_and_errors_are_left_to_the_method():
    """There, the rollouts are on disk already."""
    completer = Completer(TransformersEngine(), None, InlineConfidence(), PhaseClock(), contextlib.nullcontext)
    verdict, reading = Verdict(True, "a", AnswerOutcome.PARSED), InlineConfidence().parse("a")
    group = tuple(VerifiedRollout(rollout_of(text), verdict, reading) for text in ("aaa", "b"))
    unjudged = replace(group[0], verdict=None)
    groups, examples = [(*group, unjudged)], [Example("1", "Q", "a")]
    assert completer.rewarded({}, examples, groups) == groups
    (found,) = completer.rewarded({"Length": Earns()}, examples, groups)
    assert [each.rewards for each in found] == [{"Length": 3.0}, {"Length": 1.0}, None]
    (found,) = completer.rewarded({"Length": Earns(LookupError("b"))}, examples, groups)
    assert [each.rewards for each in found] == [{"Length": 3.0}, None, None]
    assert [each.verdict for each in found] == [verdict, verdict, None]


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
    completer = Completer(engine, tokenizer, InlineConfidence(), clock, precision)
    completer.sync(policy, version=4)
    requests = [RolloutRequest(prompt, seed) for seed, prompt in enumerate(prompts)]
    groups = completer.complete(examples, requests, 2, Sampling(max_new_tokens=8), ExactMatch())
    assert [len(group) for group in groups] == [2, 2, 2]
    for example, group in zip(examples, groups, strict=True):
        for verified in group:
            answer = verified.rollout.text.partition("\n")[0]
            assert verified.verdict.correct == (answer == example.target)
            assert verified.rollout.policy_version == 4
    assert phases == ["sync", "rollout", "verify"]
    assert within == ["precision", "precision"]  # the comparison computes as sampling does
    seconds = clock.take()
    assert set(seconds) == {"sync", "rollout", "verify"}
    assert clock.take() == {}


def test_a_stale_engine_is_noticed(tokenizer, policy):
    class Stale(TransformersEngine):
        def sync(self, policy, version):
            super().sync(policy, version - 1)

    engine = Stale()
    engine.start(tokenizer)
    completer = Completer(engine, tokenizer, InlineConfidence(), PhaseClock(), contextlib.nullcontext)
    completer.sync(policy, version=4)
    request = RolloutRequest(tuple(tokenizer("6")["input_ids"]), 0)
    with pytest.raises(RolloutError, match="stale"):
        completer.complete([Example("1", "Q", "6")], [request], 1, Sampling(max_new_tokens=2), ExactMatch())


def test_completions_are_compared_once_for_given_weights_and_sampling(tokenizer, policy):
    """The first of them: not in every batch of a validation."""
    forwards = []

    def noted(module, arguments):
        forwards.append(len(arguments[0].ids_BL))

    engine = TransformersEngine()
    engine.start(tokenizer)
    parity = ParityConfig(num_rollouts=2)
    completer = Completer(engine, tokenizer, InlineConfidence(), PhaseClock(), contextlib.nullcontext, parity=parity)
    requests, example = [RolloutRequest(tuple(tokenizer("6")["input_ids"]), 0)], Example("1", "Q", "6")
    hook = policy.register_forward_pre_hook(noted)  # generation does not pass through it
    other, warm = Sampling(max_new_tokens=2), Sampling(temperature=0.7, max_new_tokens=2)
    try:
        for version, sampling, expected in ((0, other, 2), (0, other, 2), (0, warm, 4), (1, other, 6), (1, other, 6)):
            completer.sync(policy, version)
            completer.complete([example], requests, 3, sampling, ExactMatch())
            assert len(forwards) == expected
    finally:
        hook.remove()


def test_a_completion_begins_within_the_thought_that_its_prompt_opened(tokenizer, policy):
    """Its text alone does not tell."""
    engine = TransformersEngine()
    engine.start(tokenizer)
    examples = DrawTask(num_train=2).examples("train")
    first, second = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, 8).student_prompts(examples)
    completer = Completer(engine, tokenizer, InlineConfidence(), PhaseClock(), contextlib.nullcontext)
    completer.sync(policy, version=0)
    requests = [RolloutRequest(ids, seed=0) for ids in (first, (*second, *tokenizer("<think>")["input_ids"]))]
    sampling = Sampling(temperature=0.0, max_new_tokens=8)
    (said,), (thought,) = completer.complete(examples, requests, 1, sampling, ExactMatch())
    assert "think" not in thought.rollout.text
    assert said.verdict.outcome is AnswerOutcome.PARSED
    assert said.reading.outcome is ConfidenceOutcome.DECIMAL
    assert thought.verdict.outcome is AnswerOutcome.MISSING
    assert thought.reading.outcome is ConfidenceOutcome.UNFINISHED


def test_marks_that_the_template_declares_are_thoughts(policy):
    tokenizer = ModelSource().load_tokenizer()
    text = "<muse>4\nConfidence: 0.20</muse>6\nConfidence: 0.90"

    class Muses(TransformersEngine):
        def generate(self, requests, num_rollouts, sampling):
            return [[rollout_of(text)] for _ in requests]

    none = ParityConfig(num_rollouts=0)  # this engine draws from no model
    completer = Completer(Muses(), tokenizer, InlineConfidence(), PhaseClock(), contextlib.nullcontext, parity=none)
    completer.sync(policy, version=0)
    request, example = RolloutRequest(tuple(tokenizer("6")["input_ids"]), 0), Example("1", "Q", "6")
    ((before,),) = completer.complete([example], [request], 1, Sampling(), ExactMatch())
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</muse>')[-1] }}{% endfor %}"
    ((after,),) = completer.complete([example], [request], 1, Sampling(), ExactMatch())
    assert (before.verdict.answer, after.verdict.answer) == (text.removesuffix("\nConfidence: 0.90"), "6")
    assert (before.thoughts, after.thoughts) == ((), ((0, text.index("6")),))
