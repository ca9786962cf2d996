import itertools
import math
import statistics

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from caopd.errors import ConfigError
from caopd.losses import (
    CrossEntropyLoss,
    DistillationLoss,
    ImportanceSampling,
    ModelOutput,
    PolicyGradientLoss,
    VOPDLoss,
)
from caopd.losses.base import LossInputs
from caopd.losses.logprobs import target_logprobs
from caopd.methods import SDFT, SDPO, CaOPD
from caopd.training.module import DistillationModule

ENGINE, STUDENT = (0.7, 0.2, 0.1), (0.5, 0.1, 0.4)
"""Distributions over three tokens, the same at both positions of a completion."""
PAIRS = list(itertools.product(range(3), repeat=2))


def ratios_of(sampling, pairs, reduction="token_mean", with_own=False):
    tokens = torch.tensor(pairs).flatten()
    student, engine = torch.tensor(STUDENT).log()[tokens], torch.tensor(ENGINE).log()[tokens]
    sequence = torch.arange(len(pairs)).repeat_interleave(2)
    return sampling.ratios(student, engine, sequence, reduction, with_own).view(-1, 2)


@pytest.mark.parametrize("cap", [math.inf, 2.0, 0.5])
def test_ratios_by_hand(cap):
    single = [[STUDENT[t] / ENGINE[t] for t in pair] for pair in PAIRS]
    expected = {
        "token": single,
        "prefix": [[1, first] for first, _ in single],
        "prefix with own": [[first, first * second] for first, second in single],
        "sequence": [[first * second] * 2 for first, second in single],
    }
    for name, ratios in expected.items():
        level, with_own = name.removesuffix(" with own"), name.endswith("own")
        actual = ratios_of(ImportanceSampling(level, cap), PAIRS, with_own=with_own)
        torch.testing.assert_close(actual, torch.tensor(ratios, dtype=torch.float32).clamp(max=cap))


@pytest.mark.parametrize(("reduction", "level"), [("token_mean", "prefix"), ("sequence_mean", "sequence")])
def test_by_default_the_ratio_is_of_what_the_reduction_depends_on(reduction, level):
    named = ratios_of(ImportanceSampling(level), PAIRS)
    torch.testing.assert_close(ratios_of(ImportanceSampling(), PAIRS, reduction), named)


def test_no_tokens_have_no_ratios():
    nothing = torch.zeros(0)
    for level in ("token", "prefix", "sequence"):
        ratios = ImportanceSampling(level).ratios(nothing, nothing, nothing.long(), "token_mean", False)
        assert ratios.shape == (0,)


VOCABULARY, HORIZON, END = 3, 4, 0


class Enumerated:
    """A student, an engine and a teacher with a distribution of their own after every prefix, and all completions."""

    def __init__(self, seed):
        self.prefixes = [
            prefix for length in range(HORIZON) for prefix in itertools.product(range(1, VOCABULARY), repeat=length)
        ]
        g = torch.Generator().manual_seed(seed)
        shape = (3, len(self.prefixes), VOCABULARY)
        self.student, engine, teacher = torch.randn(shape, generator=g, dtype=torch.float64)
        self.engine, self.teacher = self.student + 0.5 * engine, self.student + teacher
        ended = [(*prefix, END) for prefix in self.prefixes]
        self.completions = ended + list(itertools.product(range(1, VOCABULARY), repeat=HORIZON))

    def places(self, completion):
        return [self.prefixes.index(completion[:length]) for length in range(len(completion))]

    def logprobs(self, logits, completion):
        return logits.log_softmax(-1)[self.places(completion), list(completion)]

    def gradient(self, loss, sampler, reduction):
        """The expected gradient of the package's loss, over completions that a sampler makes."""
        rows, targets, weights, sampled, sequence = [], [], [], [], []
        for number, completion in enumerate(self.completions):
            logprob = self.logprobs(sampler, completion)
            rows += self.places(completion)
            targets += completion
            weight = float(logprob.sum().exp()) / (len(completion) if reduction == "sequence_mean" else 1)
            weights += [weight] * len(completion)
            sampled += logprob.tolist()
            sequence += [number] * len(completion)
        weight, sampled = torch.tensor([weights, sampled], dtype=torch.float64)
        inputs = LossInputs(weight, weight < 0, torch.tensor(targets), sampled, sampled, 1.0, torch.tensor(sequence))
        hidden = torch.eye(len(self.prefixes), dtype=torch.float64)[rows]
        head = self.student.T.clone().requires_grad_()
        output = loss(ModelOutput(hidden, head), ModelOutput(hidden, self.teacher.T), inputs)
        return torch.autograd.grad(output.loss, head)[0].T

    def wanted(self, reduction):
        """The student's own expectation of reverse KL's gradient, its probabilities of completions held fixed."""
        logits = self.student.clone().requires_grad_()
        kl = kl_divergence(Categorical(logits=logits), Categorical(logits=self.teacher))
        total = 0.0
        for completion in self.completions:
            divergence = kl[self.places(completion)].sum()
            if reduction == "sequence_mean":
                divergence = divergence / len(completion)
            total = total + self.logprobs(self.student, completion).sum().exp() * divergence
        return torch.autograd.grad(total, logits)[0]

    def bias(self, loss):
        wanted = self.wanted(loss.reduction)
        return float((self.gradient(loss, self.engine, loss.reduction) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", [DistillationLoss, VOPDLoss])
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean"])
def test_over_all_completions_of_the_engine_the_gradient_is_the_students_own(kind, reduction, seed):
    """With an uncapped ratio. vOPD's mean over a completion's tokens is never reverse KL's gradient, ratios or not."""
    case = Enumerated(seed)
    loss = kind(reduction=reduction, importance_sampling=ImportanceSampling(cap=math.inf))
    without = kind(reduction=reduction)
    on_policy = case.gradient(without, case.student, reduction)
    torch.testing.assert_close(case.gradient(loss, case.engine, reduction), on_policy, rtol=1e-5, atol=1e-6)
    if kind is DistillationLoss or reduction == "token_mean":
        assert case.bias(loss) < 1e-5
        assert case.bias(without) > 0.05


def test_the_ratio_of_a_token_has_mean_1_after_every_prefix_and_is_refused_for_a_divergence():
    case = Enumerated(0)
    token = torch.arange(VOCABULARY)
    for student, engine in zip(case.student.log_softmax(-1), case.engine.log_softmax(-1), strict=True):
        ratio = ImportanceSampling("token", math.inf).ratios(student, engine, token, "token_mean", False)
        assert float(engine.exp() @ ratio.double()) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ConfigError, match=r"`prefix` or `sequence`, but got `token`.*corrects nothing"):
        DistillationLoss(importance_sampling=ImportanceSampling("token"))


def test_the_default_is_the_least_biased_ratio_for_each_reduction():
    """Over several cases: a prefix leaves a mean's lengths to the engine, a cap takes more from longer products."""

    def bias(reduction, sampling):
        loss = DistillationLoss(reduction=reduction, importance_sampling=sampling)
        return statistics.median(Enumerated(seed).bias(loss) for seed in range(8))

    for reduction, best, other in (("token_mean", "prefix", "sequence"), ("sequence_mean", "sequence", "prefix")):
        default, named = bias(reduction, ImportanceSampling()), bias(reduction, ImportanceSampling(best))
        assert default == named
        assert default < bias(reduction, ImportanceSampling(other)) < bias(reduction, None)


@pytest.mark.parametrize("level", ["prefix", "sequence"])
@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_the_loss_weighs_every_token_by_its_ratio(level, chunk_size):
    """Against the dense divergence with ratios by hand."""
    g = torch.Generator().manual_seed(0)
    hidden, teacher_hidden = torch.randn(2, 7, 4, generator=g)
    head, teacher_head = torch.randn(2, 9, 4, generator=g)
    head.requires_grad_()
    target, sequence = torch.randint(9, (7,), generator=g), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    weight = torch.tensor([0.0, 0.5, 0.2, 0.1, 0.3, 0.4, 0.6])
    sampled = torch.randn(7, generator=g) - 2
    loss = DistillationLoss(chunk_size=chunk_size, importance_sampling=ImportanceSampling(level, 1.5))

    logits = hidden @ head.T
    logprob = logits.log_softmax(-1)[torch.arange(7), target]
    torch.testing.assert_close(target_logprobs(ModelOutput(hidden, head), target, chunk_size), logprob.detach())
    difference = (logprob - sampled).detach()
    counted = [
        [other for other in range(7) if sequence[other] == sequence[token] and (level == "sequence" or other < token)]
        for token in range(7)
    ]
    ratio = torch.stack([difference[others].sum() for others in counted]).exp().clamp(max=1.5)
    dense = (weight * ratio * loss.body(logits, teacher_hidden @ teacher_head.T)).sum()
    (expected_gradient,) = torch.autograd.grad(dense, head)

    streams = LossInputs(weight, torch.zeros(7, dtype=torch.bool), target, sampled, sampled, 1.0, sequence)
    output = loss(ModelOutput(hidden, head), ModelOutput(teacher_hidden, teacher_head), streams)
    (gradient,) = torch.autograd.grad(output.loss, head)
    torch.testing.assert_close(output.loss, dense)
    torch.testing.assert_close(gradient, expected_gradient)
    total, number = output.totals["importance_ratio"]
    assert int(number) == 6
    assert float(total) == pytest.approx(float(ratio[1:].sum()), rel=1e-5)
    assert set(output.totals) == set(loss.logged)


def test_importance_sampling_cannot_meet_revised_completions():
    loss = DistillationLoss(importance_sampling=ImportanceSampling())
    for method in (SDFT(), SDPO()):
        assert DistillationModule(method=method, loss=loss).loss is loss
    for backbone in (SDFT(), SDPO()):
        with pytest.raises(ConfigError, match=r"DistillationLoss.*CaOPD revises.*`importance_sampling`"):
            DistillationModule(method=CaOPD(backbone), loss=loss)
        assert DistillationModule(method=CaOPD(backbone), loss=DistillationLoss()).loss.importance_sampling is None


@pytest.mark.parametrize(("temperature", "truncated"), [(0.7, False), (1.0, True), (0.0, False)])
def test_importance_sampling_refuses_other_distributions(temperature, truncated):
    with pytest.raises(ConfigError, match="temperature 1, top_p 1 and top_k 0"):
        DistillationLoss(importance_sampling=ImportanceSampling()).check_sampling(temperature, truncated, 1)
    DistillationLoss().check_sampling(temperature, truncated, 1)


def test_which_losses_need_sampled_tokens():
    assert not DistillationLoss().needs_sampled
    assert not CrossEntropyLoss().needs_sampled
    assert DistillationLoss(importance_sampling=ImportanceSampling()).needs_sampled
    assert PolicyGradientLoss().needs_sampled


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match=r"`cap`.*positive"):
        ImportanceSampling(cap=0.0)
