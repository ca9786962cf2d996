"""Whatever makes completions another model's than the one that is trained or evaluated stops the run, and says why.

Each leak is planted where it would arise: in the class of a model (as its repository's code brings it), in an engine,
or in the weights that an engine holds.
"""

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from caopd.cli import main
from caopd.confidence import InlineConfidence
from caopd.errors import RolloutError
from caopd.models import LanguageModel
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.rounds.completer import Completer
from caopd.rounds.parity import ParityConfig
from caopd.rounds.phases import PhaseClock
from caopd.types import Example, Rollout
from caopd.verifiers import ExactMatch

from .conftest import QUICKSTART, SMALL, options

QUESTION = (4, 9, 120, 124, 121, 122, 125, 202, 10, 2, 5)
PROMPTS = [QUESTION, (*QUESTION[:3], 120, *QUESTION[3:]), (*QUESTION[:2], *QUESTION[4:]), QUESTION]
"""Of DrawTask, with differently many lots."""
SAMPLED = Sampling(temperature=1.0, max_new_tokens=8)
WARM = Sampling(temperature=0.7, top_p=0.9, top_k=20, max_new_tokens=8)
GREEDY = Sampling(temperature=0.0, max_new_tokens=8)


def complete(engine, policy, tokenizer, sampling=SAMPLED, parity=ParityConfig()):
    """What the parity guard measures where training, evaluation and the teacher's answers are sampled."""
    engine.start(tokenizer)
    completer = Completer(engine, tokenizer, InlineConfidence(), PhaseClock(), contextlib.nullcontext, parity=parity)
    completer.sync(policy, 0)
    requests = [RolloutRequest(prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    examples = [Example(str(number), "Q", "6") for number in range(len(PROMPTS))]
    completer.complete(examples, requests, 3, sampling, ExactMatch())
    return completer.measured


@pytest.mark.parametrize("sampling", [SAMPLED, WARM, GREEDY, replace(WARM, top_p=1.0), replace(WARM, top_k=0)])
def test_the_models_own_completions_pass_whatever_the_settings(policy, tokenizer, sampling):
    assert 0 < complete(TransformersEngine(), policy, tokenizer, sampling)["parity_max"] < 1e-4


class Forbids(LogitsProcessor):
    """Leaves the end out, and some digits."""

    def __call__(self, input_ids, scores):
        return scores.index_fill(1, torch.tensor([2, 121, 123, 125]), -torch.inf)


class Flattens(LogitsProcessor):
    """Has a temperature of its own."""

    def __call__(self, input_ids, scores):
        return scores / 1.1


def with_processor(processor, after):
    class Processing:
        def _get_logits_processor(self, *arguments, **keywords):
            processors = super()._get_logits_processor(*arguments, **keywords)
            return LogitsProcessorList([*processors, processor] if after else [processor, *processors])

    return Processing


class EndsEarly(StoppingCriteria):
    def __call__(self, input_ids, scores, **keywords):
        return torch.full((len(input_ids),), input_ids.shape[1] >= 9)


class StopsEarly:
    def _get_stopping_criteria(self, *arguments, **keywords):
        return StoppingCriteriaList([*super()._get_stopping_criteria(*arguments, **keywords), EndsEarly()])


class Inputs:
    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return self.changed(super().prepare_inputs_for_generation(input_ids, **kwargs))


class AttendsToPadding(Inputs):
    def changed(self, inputs):
        return {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}


class CountsPadding(Inputs):
    def changed(self, inputs):
        past = inputs["attention_mask"].shape[1] - inputs["input_ids"].shape[1]
        positions = torch.arange(past, past + inputs["input_ids"].shape[1])
        return {**inputs, "position_ids": positions.expand_as(inputs["input_ids"])}


def of_class(policy, mixin):
    """A model whose class does something of its own while it generates."""
    hf = copy.deepcopy(policy.hf)
    hf.__class__ = type(type(hf).__name__, (mixin, type(hf)), {})
    return LanguageModel(hf, policy.stop_token_ids, policy.pad_token_id)


@pytest.mark.parametrize("sampling", [SAMPLED, WARM, GREEDY])
@pytest.mark.parametrize(
    ("mixin", "words"),
    [
        (with_processor(Forbids(), after=False), r"not on-policy.*logits processor of its class"),
        (with_processor(Flattens(), after=False), r"not on-policy.*logits processor of its class"),
        (
            with_processor(Forbids(), after=True),
            r"as they were drawn, but token \d+ of one is 0 where \d+ was drawn",
        ),
        (StopsEarly, r"as they were drawn, but one ends after \d tokens, of 8, without a stop token"),
        (AttendsToPadding, r"not on-policy.*padding is attended to"),
        (CountsPadding, r"not on-policy.*positions are counted otherwise"),
    ],
    ids=["processor", "temperature", "processor after the draw", "stopping", "attention mask", "positions"],
)
def test_a_models_class_that_generates_otherwise_stops_the_run(policy, tokenizer, mixin, words, sampling):
    with pytest.raises(RolloutError, match=words):
        complete(TransformersEngine(), of_class(policy, mixin), tokenizer, sampling)


def test_tokens_that_are_left_out_are_said(policy, tokenizer):
    forbids = of_class(policy, with_processor(Forbids(), after=False))
    with pytest.raises(RolloutError, match=r"First at token 1 of one, id \d+: -[\d.]+ by the engine, -[\d.]+ by the m"):
        complete(TransformersEngine(), forbids, tokenizer)
    with pytest.raises(RolloutError, match=r"The engine is surer of every token that differs, as where other tokens"):
        complete(TransformersEngine(), forbids, tokenizer)


class Copies(TransformersEngine):
    """Samples from a copy of the weights."""

    def sync(self, policy, version):
        super().sync(self.copy(policy), version)

    @property
    def rounding(self):
        return 0.002


class Stale(Copies):
    def copy(self, policy):
        """Weights of a few steps ago."""
        held = copy.deepcopy(policy)
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in held.parameters():
                weight += 0.01 * torch.randn_like(weight)
        return held


class Halved(Copies):
    def copy(self, policy):
        return copy.deepcopy(policy).to(torch.bfloat16)


class WithDropout(Copies):
    def copy(self, policy):
        held = copy.deepcopy(policy)
        for module in held.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.2
        held.eval = held.train  # whoever calls it, it stays in training mode
        return held


class PadsRight(TransformersEngine):
    def generate(self, requests, num_rollouts, sampling):
        longest = max(len(request.prompt_ids) for request in requests)
        padded = [
            replace(request, prompt_ids=request.prompt_ids + (0,) * (longest - len(request.prompt_ids)))
            for request in requests
        ]
        return super().generate(padded, num_rollouts, sampling)


@pytest.mark.parametrize("sampling", [SAMPLED, WARM, GREEDY])
@pytest.mark.parametrize("engine", [Stale, Halved, WithDropout, PadsRight])
def test_an_engine_that_computes_otherwise_stops_the_run(policy, tokenizer, engine, sampling):
    with pytest.raises(RolloutError, match=r"the model's within 0\.002 nats .*not on-policy.*Its weights, its head or"):
        complete(engine(), policy, tokenizer, sampling)


def test_the_limit_can_be_raised_for_another_dtype(policy, tokenizer):
    assert complete(Halved(), policy, tokenizer, parity=ParityConfig(limit=0.5))["parity_max"] > 0.002


def otherwise(**settings):
    class Otherwise(TransformersEngine):
        """Samples with other settings than it is asked for."""

        def generate(self, requests, num_rollouts, sampling):
            return super().generate(requests, num_rollouts, replace(sampling, **settings))

    return Otherwise()


@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        (SAMPLED, {"temperature": 1.3}),
        (SAMPLED, {"temperature": 0.9}),
        (SAMPLED, {"temperature": 0.0}),
        (SAMPLED, {"top_k": 3}),
        (SAMPLED, {"top_p": 0.9}),
        (WARM, {"top_p": 1.0, "top_k": 0}),
        (WARM, {"top_p": 0.8}),
        (WARM, {"temperature": 1.0}),
        (GREEDY, {"temperature": 1.0}),
    ],
    ids=str,
)
def test_sampling_with_other_settings_than_asked_for_stops_the_run(policy, tokenizer, asked, settings):
    """The model's own log-probabilities agree there."""
    with pytest.raises(RolloutError, match=r"it is the sampling that differs.*was asked for Sampling\(temperature="):
        complete(otherwise(**settings), policy, tokenizer, asked)


class LeaksWhereItIsGreedy(TransformersEngine):
    """In a run of the quickstart these are validations."""

    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        return super().generate(requests, num_rollouts, replace(sampling, temperature=sampling.temperature or 1.5))


class LeaksInRounds(TransformersEngine):
    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        return super().generate(requests, num_rollouts, replace(sampling, temperature=1.2 * sampling.temperature))


@pytest.mark.parametrize("engine", ["LeaksWhereItIsGreedy", "LeaksInRounds"])
def test_a_leak_ends_caopd_fit_in_words(engine, tmp_path, capfd):
    arguments = options({**SMALL, "trainer.default_root_dir": tmp_path, "data.engine": f"{__name__}.{engine}"})
    assert main(["fit", f"--config={QUICKSTART}", *arguments]) == 1
    assert "it is the sampling that differs" in " ".join(capfd.readouterr().err.split())
