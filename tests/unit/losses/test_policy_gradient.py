"""PolicyGradientLoss against a dense loss by autograd, finite differences and enumeration."""

import math
from dataclasses import replace

import pytest
import torch

from caopd.errors import ConfigError
from caopd.losses import LossInputs, ModelOutput, PolicyGradientLoss

VOCABULARY, CLOSE = 19, {"rtol": 1e-10, "atol": 1e-12}


def make_case(tokens=40, temperature=1.0, seed=0, drift=0.5, vocabulary=VOCABULARY):
    """States, heads and streams in float64; old log-probabilities are off by ``drift`` standard normal nats."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 5, dtype=torch.float64, generator=g).requires_grad_()
    head = torch.randn(vocabulary, 5, dtype=torch.float64, generator=g).requires_grad_()
    reference = ModelOutput(
        torch.randn(tokens, 5, dtype=torch.float64, generator=g),
        torch.randn(vocabulary, 5, dtype=torch.float64, generator=g),
    )
    target_T = torch.randint(vocabulary, (tokens,), generator=g)
    logprob_T = (hidden @ head.T).detach().log_softmax(-1)[torch.arange(tokens), target_T]
    old_T = logprob_T + drift * torch.randn(tokens, dtype=torch.float64, generator=g)
    advantage_T = torch.randn(tokens, dtype=torch.float64, generator=g)
    weight_T = torch.rand(tokens, dtype=torch.float64, generator=g)
    streams = LossInputs(
        weight_T,
        torch.zeros(tokens, dtype=torch.bool),
        target_T,
        old_T,
        advantage_T,
        temperature,
        torch.zeros_like(target_T),
    )
    return hidden, head, reference, streams


def dense(hidden, head, reference, tokens, low, high, coefficient):
    """The formula of the class, read off: autograd does the rest."""
    logits_TV = hidden @ head.T / tokens.temperature
    policy = torch.distributions.Categorical(logits=logits_TV)
    logprob_T = policy.log_prob(tokens.target_T)
    old_T = tokens.sampled_logprob_T if tokens.temperature == 1 else logprob_T.detach()
    ratio_T = (logprob_T - old_T).exp()
    gain_T = ratio_T * tokens.advantage_T
    bounded_T = ratio_T.detach().clamp(1 - low, 1 + high) * tokens.advantage_T
    # A ratio on its bound is not clipped; the gradient of `min` and `clamp` there differs between versions of torch.
    surrogate_T = torch.where(bounded_T < gain_T, bounded_T, gain_T)
    other = torch.distributions.Categorical(logits=reference.hidden_TH @ reference.head_VH.T / tokens.temperature)
    kl_T = torch.distributions.kl_divergence(policy, other)
    return (tokens.weight_T * (-surrogate_T + coefficient * kl_T)).sum(), ratio_T, policy, kl_T


@pytest.mark.parametrize("chunk_size", [1, 7, 64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("low", "high", "coefficient"), [(0.2, 0.2, 0.0), (0.2, 0.28, 0.3), (1.0, 5.0, 0.0), (0.0, 0.0, 1.0)]
)
def test_equals_the_dense_loss_in_value_gradients_and_what_is_logged(low, high, coefficient, temperature, chunk_size):
    hidden, head, reference, tokens = make_case(temperature=temperature)
    loss = PolicyGradientLoss(low, high, coefficient, chunk_size=chunk_size)
    output = loss(ModelOutput(hidden, head), reference if loss.needs_teacher else None, tokens)
    expected, ratio_T, policy, kl_T = dense(hidden, head, reference, tokens, low, high, coefficient)
    torch.testing.assert_close(output.loss, expected, **CLOSE)
    actual = torch.autograd.grad(output.loss, (hidden, head))
    torch.testing.assert_close(actual, torch.autograd.grad(expected, (hidden, head)), **CLOSE)

    assert set(output.totals) == set(loss.logged)
    means = {name: (total / number).item() for name, (total, number) in output.totals.items()}
    up, down = (tokens.advantage_T > 0) & (ratio_T > 1 + high), (tokens.advantage_T < 0) & (ratio_T < 1 - low)
    assert means["clipped"] == pytest.approx((up | down).double().mean().item())
    assert means["student_entropy"] == pytest.approx(policy.entropy().mean().item())
    assert means["kl_sampler"] == pytest.approx((ratio_T - 1 - ratio_T.log()).mean().item(), abs=1e-12)
    if coefficient:
        assert means["kl_reference"] == pytest.approx(kl_T.mean().item())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_are_finite_differences(temperature):
    hidden, head, reference, tokens = make_case(tokens=3, temperature=temperature, drift=0.05)
    loss = PolicyGradientLoss(0.2, 0.2, kl_coefficient=0.5, chunk_size=2)
    frozen = (hidden @ head.T / temperature).detach().log_softmax(-1)[torch.arange(3), tokens.target_T]
    analytic = torch.autograd.grad(loss(ModelOutput(hidden, head), reference, tokens).loss, (hidden, head))
    # The ratio's denominator does not move with the weights: at a temperature other than 1 it is fixed here by hand.
    fixed = replace(tokens, sampled_logprob_T=tokens.sampled_logprob_T if temperature == 1 else frozen, temperature=1.0)

    def value():
        tempered = ModelOutput(hidden / temperature, head)
        other = ModelOutput(reference.hidden_TH / temperature, reference.head_VH)
        return loss(tempered, other, fixed).loss.item()

    step = 1e-6
    for x, gradient in zip((hidden, head), analytic, strict=True):
        flat, numeric = x.detach().view(-1), torch.empty(x.numel(), dtype=x.dtype)
        for i, center in enumerate(flat.tolist()):
            sides = []
            for sign in (1, -1):
                flat[i] = center + sign * step
                sides.append(value())
            flat[i] = center
            numeric[i] = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close(gradient.view(-1), numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_expected_gradient_is_that_of_the_expected_advantage(temperature):
    """Every token of the vocabulary, weighted by its probability under the policy that samples: no formula of PPO."""
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(1, 5, dtype=torch.float64, generator=g)
    head = torch.randn(VOCABULARY, 5, dtype=torch.float64, generator=g).requires_grad_()
    advantage_V = torch.randn(VOCABULARY, dtype=torch.float64, generator=g)
    probability_V = (hidden @ head.T / temperature).softmax(-1)[0]
    (expected,) = torch.autograd.grad((probability_V * advantage_V).sum(), head)

    every_V = torch.arange(VOCABULARY)
    raw_V = (hidden @ head.T).detach().log_softmax(-1)[0]
    tokens = LossInputs(
        probability_V.detach(),
        every_V > VOCABULARY,
        every_V,
        raw_V,
        advantage_V,
        temperature,
        torch.zeros_like(every_V),
    )
    student = ModelOutput(hidden.expand(VOCABULARY, -1), head)
    (actual,) = torch.autograd.grad(PolicyGradientLoss()(student, None, tokens).loss, head)
    torch.testing.assert_close(-actual, expected, **CLOSE)


def test_a_step_against_the_gradient_makes_better_completions_likelier():
    hidden, head, _, tokens = make_case(drift=0.0)
    (gradient,) = torch.autograd.grad(PolicyGradientLoss()(ModelOutput(hidden, head), None, tokens).loss, head)

    def weighted_logprob(head):
        logprob_T = (hidden @ head.T).log_softmax(-1)[torch.arange(len(hidden)), tokens.target_T]
        return (tokens.weight_T * tokens.advantage_T * logprob_T).sum().item()

    assert weighted_logprob(head - 1e-3 * gradient) > weighted_logprob(head)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_tokens_that_were_not_sampled_have_the_divergence_alone(temperature):
    hidden, head, reference, tokens = make_case(temperature=temperature)
    unsampled_T = torch.arange(len(hidden)) % 3 == 0
    holes = replace(tokens, sampled_logprob_T=tokens.sampled_logprob_T.masked_fill(unsampled_T, math.nan))
    silent = replace(tokens, advantage_T=tokens.advantage_T.masked_fill(unsampled_T, 0.0))
    loss = PolicyGradientLoss(kl_coefficient=0.3)
    actual = loss(ModelOutput(hidden, head), reference, holes)
    expected, *_ = dense(hidden, head, reference, silent, 0.2, 0.2, 0.3)
    torch.testing.assert_close(actual.loss, expected, **CLOSE)
    pair = (hidden, head)
    torch.testing.assert_close(torch.autograd.grad(actual.loss, pair), torch.autograd.grad(expected, pair), **CLOSE)
    assert actual.totals["kl_sampler"].num_tokens == (~unsampled_T).sum()
    assert actual.totals["kl_sampler"].total.isfinite()


def test_tokens_without_weight_have_no_part_whatever_they_hold():
    hidden, head, reference, tokens = make_case()
    out_T = torch.arange(len(hidden)) % 4 == 1
    weightless = replace(
        tokens,
        weight_T=tokens.weight_T.masked_fill(out_T, 0.0),
        advantage_T=tokens.advantage_T.masked_fill(out_T, math.inf),
    )
    silent = replace(weightless, advantage_T=tokens.advantage_T)
    output = PolicyGradientLoss()(ModelOutput(hidden, head), None, weightless)
    actual = output.loss
    expected, *_ = dense(hidden, head, reference, silent, 0.2, 0.2, 0.0)
    torch.testing.assert_close(actual, expected, **CLOSE)
    pair = (hidden, head)
    torch.testing.assert_close(torch.autograd.grad(actual, pair), torch.autograd.grad(expected, pair), **CLOSE)
    student = torch.distributions.Categorical(logits=(hidden @ head.T)[~out_T])
    total, number = output.totals["student_entropy"]
    assert (total / number).item() == pytest.approx(student.entropy().mean().item())
    log_ratio_T = student.log_prob(tokens.target_T[~out_T]) - tokens.sampled_logprob_T[~out_T]
    total, number = output.totals["kl_sampler"]
    assert (total / number).item() == pytest.approx((log_ratio_T.exp() - 1 - log_ratio_T).mean().item())
    assert output.totals["clipped"].num_tokens == (~out_T).sum()


def test_float32_agrees():
    hidden, head, reference, tokens = make_case()
    expected, *_ = dense(hidden, head, reference, tokens, 0.2, 0.2, 0.1)
    single = ModelOutput(hidden.detach().float(), head.detach().float().requires_grad_())
    other = ModelOutput(reference.hidden_TH.float(), reference.head_VH.float())
    streams = replace(
        tokens, sampled_logprob_T=tokens.sampled_logprob_T.float(), advantage_T=tokens.advantage_T.float()
    )
    loss = PolicyGradientLoss(kl_coefficient=0.1)(single, other, streams).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("coefficient", [0.0, 0.1])
def test_no_tensor_grows_with_tokens_times_vocabulary(coefficient, largest_tensor):
    def largest(tokens, run):
        hidden, head, reference, streams = make_case(tokens=tokens, vocabulary=500)
        with largest_tensor() as mode:
            run(hidden, head, reference, streams).backward()
        return mode.largest

    def chunked(hidden, head, reference, streams):
        loss = PolicyGradientLoss(kl_coefficient=coefficient, chunk_size=8)
        return loss(ModelOutput(hidden, head), reference if coefficient else None, streams).loss

    assert largest(64, lambda *case: dense(*case, 0.2, 0.2, coefficient)[0]) == 64 * 500
    for tokens in (64, 256):
        assert largest(tokens, chunked) == 8 * 500


def test_autocast_bfloat16():
    """Products in bfloat16, ratio and loss in float32, gradients in the parameters' dtype."""
    hidden, head, reference, tokens = make_case(temperature=0.7)
    single = [x.detach().float().requires_grad_() for x in (hidden, head)]
    other = ModelOutput(reference.hidden_TH.float(), reference.head_VH.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = PolicyGradientLoss(kl_coefficient=0.1, chunk_size=8)(ModelOutput(*single), other, tokens).loss
        expected, *_ = dense(*single, other, tokens, 0.2, 0.2, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected.double(), rtol=2e-2, atol=2e-2)
    actual = torch.autograd.grad(loss, single)
    assert all(x.dtype == torch.float32 for x in actual)
    for a, b in zip(actual, torch.autograd.grad(expected, single), strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_a_reference_is_needed_only_for_a_divergence_from_it():
    assert not PolicyGradientLoss().needs_teacher
    assert PolicyGradientLoss(kl_coefficient=0.04).needs_teacher


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_low": -0.1}, r"`clip_low`.*\[0, 1\].*-0.1"),
        ({"clip_low": 1.1}, r"`clip_low`.*\[0, 1\].*1.1"),
        ({"clip_high": -0.1}, "`clip_high`.*0 or larger.*-0.1"),
        ({"kl_coefficient": math.nan}, "`kl_coefficient`.*0 or larger.*nan"),
        ({"reduction": "mean"}, "'sequence_mean', 'token_mean'.*'mean'"),
    ],
)
def test_bad_settings_fail_at_construction(settings, message):
    with pytest.raises(ConfigError, match=message):
        PolicyGradientLoss(**settings)


@pytest.mark.parametrize(
    ("temperature", "truncated", "steps", "message"),
    [
        (0.0, False, 1, "temperature above 0"),
        (1.0, True, 1, "top_p"),
        (0.7, False, 2, "one optimizer step.*2 at temperature 0.7"),
    ],
)
def test_samples_of_another_distribution_are_refused(temperature, truncated, steps, message):
    with pytest.raises(ConfigError, match=message):
        PolicyGradientLoss().check_sampling(temperature, truncated, steps)


@pytest.mark.parametrize(("temperature", "steps"), [(1.0, 1), (1.0, 8), (0.7, 1)])
def test_samples_of_the_policy_are_taken(temperature, steps):
    PolicyGradientLoss().check_sampling(temperature, False, steps)
