"""A round is made and read without a Trainer, and is the one that a run trains on."""

import contextlib
import itertools
from dataclasses import replace

import pytest
import torch

from caopd.confidence import InlineConfidence
from caopd.errors import RolloutError, UnansweredError, UserCodeError
from caopd.losses import DistillationLoss
from caopd.methods import SDFT, SDPO, CaOPD
from caopd.methods.estimators import MonteCarlo, SelfConsistency
from caopd.models import ModelSource
from caopd.rollouts import Sampling, TransformersEngine
from caopd.rounds.batches import BatchPlan, Packing
from caopd.rounds.buffer import load_groups
from caopd.rounds.completer import Completer
from caopd.rounds.config import RoundConfig
from caopd.rounds.diagnostics import TeacherProbe
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.groups import GroupSampler, Policies
from caopd.rounds.phases import PhaseClock
from caopd.rounds.prompts import Curriculum
from caopd.rounds.round import RoundMaker
from caopd.tasks import DrawTask, stages_of
from caopd.types import AnswerOutcome, Verdict


@pytest.fixture(scope="module")
def student():
    return ModelSource(attn_implementation="eager").load_model(ModelSource().load_tokenizer())


@pytest.fixture(scope="module")
def encoder():
    return SampleEncoder(ModelSource().load_tokenizer(), InlineConfidence(), {}, 512, 8)


def maker_of(method, encoder, engine=None):
    engine = engine or TransformersEngine()
    engine.start(encoder.tokenizer)
    completer = Completer(engine, encoder.tokenizer, InlineConfidence(), PhaseClock(), contextlib.nullcontext)
    sizes = RoundConfig(num_prompts_per_round=16, num_rollouts=4, num_trained_rollouts=1)
    sampling = Sampling(temperature=1.0, max_new_tokens=8)
    sampler = GroupSampler(completer, encoder, method, MonteCarlo(), sizes, sampling)
    return RoundMaker(sampler, TeacherProbe())


def prompts_of(encoder, method):
    curriculum = Curriculum(stages_of(DrawTask(num_train=64)), num_prompts=16, seed=0)
    curriculum.load(lambda examples: encoder.check(examples, method))
    return curriculum.round(0)


def test_a_round_by_hand_is_the_first_of_a_run(student, encoder, fit, tmp_path):
    method = CaOPD(SDFT())
    policies = Policies(student, None, version=0)
    made = maker_of(method, encoder).make(0, prompts_of(encoder, method), policies)

    run = fit(tmp_path, **{"trainer.max_epochs": 1})
    assert list(made.groups) == load_groups(run.directory / "rollouts" / "round_00000.jsonl")
    logged = {tag.removeprefix("rollout/") for tag in run.events.Tags()["scalars"] if tag.startswith("rollout/")}
    assert logged == set(made.statistics)
    assert [sample.confidence for sample in made.trained] == [group.mu_hats[0] for group in made.groups]
    ids = [sample.student_prompt_ids for sample in made.tokenized(encoder)]
    assert ids == [group.prompt_ids for group in made.groups]


class Fails(SDFT):
    def train_samples(self, group):
        raise LookupError(group.example.id)


def test_no_error_of_a_method_loses_the_rollouts(student, encoder):
    kept = []
    with pytest.raises(UserCodeError, match="LookupError"):
        maker_of(Fails(), encoder).make(0, prompts_of(encoder, SDFT()), Policies(student, None, version=0), kept.extend)
    assert [len(group.rollouts) for group in kept] == [4] * 16


class Never:
    """Finds everything wrong, or does not come back."""

    def __init__(self, returns=True):
        self.returns = returns

    def verify(self, text, target):
        if not self.returns:
            raise UnansweredError("it did not return")
        return Verdict(False, text, AnswerOutcome.PARSED)


def test_a_round_without_any_success_teaches_sdpo_nothing_and_says_so(student, encoder):
    prompts = replace(prompts_of(encoder, SDPO()), verifier=Never())
    with pytest.warns(UserWarning, match=r"Round 0 teaches nothing: none of its 16 .*caopd\.methods\.sdpo\.SDPO"):
        made = maker_of(SDPO(), encoder).make(0, prompts, Policies(student, None, version=0))
    assert [sample.weight for sample in made.trained] == [0.0] * 16
    for reduction in ("sequence_mean", "token_mean"):
        loss = DistillationLoss(reduction=reduction)
        steps = BatchPlan(4, 2, 1).micro_batches(made.tokenized(encoder), 0, loss, 1.0, Packing(0))
        for batch in itertools.chain(*steps):
            weight_T = loss.token_weights(batch.completion_mask_BC, batch.weight_BC, batch.denominators)
            assert torch.equal(weight_T, torch.zeros_like(weight_T))


def test_a_teacher_without_a_context_has_no_say_in_what_the_right_answer_is(student, encoder):
    maker = maker_of(CaOPD(SDPO()), encoder)
    maker = replace(maker, sampler=replace(maker.sampler, estimator=SelfConsistency()))
    prompts = replace(prompts_of(encoder, SDPO()), verifier=Never())
    with pytest.warns(UserWarning, match="teaches nothing"):
        made = maker.make(0, prompts, Policies(student, student, version=0))
    assert {mu_hat for group in made.groups for mu_hat in group.mu_hats} == {None}


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_a_round_without_any_success_still_teaches_that_through_caopd(student, encoder, reduction):
    prompts = replace(prompts_of(encoder, SDPO()), verifier=Never())
    made = maker_of(CaOPD(SDPO()), encoder).make(0, prompts, Policies(student, None, version=0))
    assert (made.statistics["confidence_alone"], made.statistics["without_weight"]) == (1.0, 0.0)
    assert made.statistics["stated_optimism"] == 0
    loss = DistillationLoss(reduction=reduction)
    for (batch,) in BatchPlan(16, 1, 1).micro_batches(made.tokenized(encoder), 0, loss, 1.0, Packing(0)):
        weight_T = loss.token_weights(batch.completion_mask_BC, batch.weight_BC, batch.denominators)
        trained_T = batch.confidence_mask_BC[batch.completion_mask_BC]
        assert torch.equal(weight_T > 0, trained_T)
        assert weight_T.sum().item() == pytest.approx(1)
        stated = encoder.tokenizer.decode(batch.completion_ids_BC[batch.confidence_mask_BC])
        assert stated == "\nConfidence: 0.00<|end|>" * 16


@pytest.mark.filterwarnings("ignore:it did not return")
def test_a_round_in_which_no_rollout_has_a_verdict_ends_the_run_with_its_rollouts_kept(student, encoder):
    kept = []
    prompts = replace(prompts_of(encoder, SDFT()), verifier=Never(returns=False))
    with pytest.raises(UserCodeError, match=r"test_round\.Never to judge the 64 rollouts of round 0"):
        maker_of(SDFT(), encoder).make(0, prompts, Policies(student, None, version=0), kept.extend)
    assert [len(group.rollouts) for group in kept] == [4] * 16


class Silent(TransformersEngine):
    """Samples nothing."""

    rounding = None

    def generate(self, requests, num_rollouts, sampling):
        groups = super().generate(requests, num_rollouts, sampling)
        return [[replace(each, token_ids=(), logprobs=(), text="") for each in group] for group in groups]


def test_a_round_of_empty_completions_ends_the_run(student, encoder):
    maker = maker_of(SDFT(), encoder, Silent())
    with pytest.raises(RolloutError, match="all 64 rollouts of round 0 are empty"):
        maker.make(0, prompts_of(encoder, SDFT()), Policies(student, None, version=0))
