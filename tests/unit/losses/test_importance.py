import itertools
import math

import pytest
import torch

from caopd.errors import ConfigError
from caopd.losses import CrossEntropyLoss, DistillationLoss, ImportanceSampling, ModelOutput, PolicyGradientLoss
from caopd.losses.base import LossInputs
from caopd.losses.logprobs import target_logprobs
from caopd.methods import SDFT, SDPO, CaOPD
from caopd.training.module import DistillationModule

ENGINE, STUDENT = (0.7, 0.2, 0.1), (0.5, 0.1, 0.4)
"""Distributions over three tokens, the same at both positions of a completion."""
PAIRS = list(itertools.product(range(3), repeat=2))


def ratios_of(sampling, pairs):
    tokens = torch.tensor(pairs).flatten()
    student, engine = torch.tensor(STUDENT).log()[tokens], torch.tensor(ENGINE).log()[tokens]
    sequence = torch.arange(len(pairs)).repeat_interleave(2)
    return sampling.ratios(student, engine, sequence).view(-1, 2)


@pytest.mark.parametrize("cap", [math.inf, 2.0, 0.5])
def test_ratios_by_hand(cap):
    by_token = [[min(STUDENT[t] / ENGINE[t], cap) for t in pair] for pair in PAIRS]
    torch.testing.assert_close(ratios_of(ImportanceSampling("token", cap), PAIRS), torch.tensor(by_token))
    whole = [min(math.prod(STUDENT[t] / ENGINE[t] for t in pair), cap) for pair in PAIRS]
    expected = torch.tensor(whole)[:, None].expand(-1, 2)
    torch.testing.assert_close(ratios_of(ImportanceSampling("sequence", cap), PAIRS), expected)


def test_without_a_cap_the_sequence_form_is_unbiased():
    """Over all completions: the engine's expectation of ratio times f is the student's of f."""
    f = torch.tensor([float(3 * first - second**2) for first, second in PAIRS])
    ratio = ratios_of(ImportanceSampling("sequence", math.inf), PAIRS)[:, 0]
    engine, student = (torch.tensor([p[a] * p[b] for a, b in PAIRS]) for p in (ENGINE, STUDENT))
    assert float((engine * ratio * f).sum()) == pytest.approx(float((student * f).sum()), rel=1e-5)


def test_no_tokens_have_no_ratios():
    nothing = torch.zeros(0)
    for level in ("token", "sequence"):
        assert ImportanceSampling(level).ratios(nothing, nothing, nothing.long()).shape == (0,)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_the_loss_weighs_every_token_by_its_ratio(level, chunk_size):
    """Against the dense divergence with ratios by hand; the skipped token's missing log-probability does no harm."""
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
    if level == "sequence":
        difference = torch.stack([difference[sequence == index].sum() for index in sequence])
    ratio = difference.exp().clamp(max=1.5)
    dense = (weight * ratio * loss.body(logits, teacher_hidden @ teacher_head.T)).sum()
    (expected_gradient,) = torch.autograd.grad(dense, head)

    if level == "token":
        sampled[0] = torch.nan
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
