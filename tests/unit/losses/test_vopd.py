"""VOPDLoss against a dense loss by autograd, finite differences, and the exact expectation over a tiny vocabulary."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from caopd.errors import ConfigError
from caopd.losses import Denominators, DistillationLoss, ImportanceSampling, LossInputs, ModelOutput, VOPDLoss
from caopd.methods import SDFT, SDPO, CaOPD
from caopd.training.module import DistillationModule

VOCABULARY, CLOSE = 19, {"rtol": 1e-10, "atol": 1e-12}


def make_case(tokens=40, seed=0, vocabulary=VOCABULARY, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 5, dtype=dtype, generator=g).requires_grad_()
    head = torch.randn(vocabulary, 5, dtype=dtype, generator=g).requires_grad_()
    teacher = ModelOutput(
        torch.randn(tokens, 7, dtype=dtype, generator=g), torch.randn(vocabulary, 7, dtype=dtype, generator=g)
    )
    target_T = torch.randint(vocabulary, (tokens,), generator=g)
    weight_T = torch.rand(tokens, dtype=dtype, generator=g)
    mask_T = torch.rand(tokens, generator=g) < 0.4
    nowhere_T = torch.full_like(weight_T, torch.nan)
    streams = LossInputs(weight_T, mask_T, target_T, nowhere_T, nowhere_T, 1.0, torch.zeros_like(target_T))
    return hidden, head, teacher, streams


def baseline(student, teacher, top_k):
    """KL(S||T), or that of the k most likely tokens and of the sum of the others, token by token."""
    if top_k is None:
        return kl_divergence(student, teacher)
    rows = []
    for s, t in zip(student.probs.tolist(), teacher.probs.tolist(), strict=True):
        order = sorted(range(len(s)), key=lambda v: -s[v])
        events = [[v] for v in order[:top_k]] + [order[top_k:]]
        pairs = [(sum(s[v] for v in event), sum(t[v] for v in event)) for event in events if event]
        rows.append(sum(p * math.log(p / q) for p, q in pairs))
    return torch.tensor(rows, dtype=student.probs.dtype)


def dense(hidden, head, teacher, tokens, top_k=None):
    """The formula of the class, read off: autograd does the rest."""
    student, other = Categorical(logits=hidden @ head.T), Categorical(logits=teacher.hidden_TH @ teacher.head_VH.T)
    logprob_T = student.log_prob(tokens.target_T)
    advantage_T = other.log_prob(tokens.target_T) - logprob_T + baseline(student, other, top_k)
    return (tokens.weight_T * -advantage_T.detach() * logprob_T).sum(), student, other


@pytest.mark.parametrize("chunk_size", [1, 7, 64])
@pytest.mark.parametrize("top_k", [None, 0, 1, 4, VOCABULARY, 10 * VOCABULARY])
def test_equals_the_dense_loss_in_value_gradients_and_what_is_logged(top_k, chunk_size):
    hidden, head, teacher, tokens = make_case()
    loss = VOPDLoss(top_k, chunk_size=chunk_size)
    output = loss(ModelOutput(hidden, head), teacher, tokens)
    expected, student, other = dense(hidden, head, teacher, tokens, top_k)
    torch.testing.assert_close(output.loss, expected, **CLOSE)
    pair = (hidden, head)
    torch.testing.assert_close(torch.autograd.grad(output.loss, pair), torch.autograd.grad(expected, pair), **CLOSE)

    means = {name: (total / number).item() for name, (total, number) in output.totals.items()}
    assert set(means) == set(loss.logged)
    kl_T = kl_divergence(student, other)
    assert means["kl_body"] == pytest.approx(kl_T[~tokens.confidence_mask_T].mean().item())
    assert means["kl_confidence"] == pytest.approx(kl_T[tokens.confidence_mask_T].mean().item())
    assert means["student_entropy"] == pytest.approx(student.entropy().mean().item())
    assert means["teacher_entropy"] == pytest.approx(other.entropy().mean().item())
    assert output.teacher_top1_T.tolist() == other.probs.argmax(-1).tolist()


def test_gradients_are_finite_differences_with_the_advantage_held_fixed():
    hidden, head, teacher, tokens = make_case(tokens=3)
    (actual,) = torch.autograd.grad(VOPDLoss(chunk_size=2)(ModelOutput(hidden, head), teacher, tokens).loss, head)
    student, other = Categorical(logits=hidden @ head.T), Categorical(logits=teacher.hidden_TH @ teacher.head_VH.T)
    ratio_T = other.log_prob(tokens.target_T) - student.log_prob(tokens.target_T)
    fixed_T = (ratio_T + kl_divergence(student, other)).detach()
    step, flat = 1e-5, head.detach().view(-1)
    for i, center in enumerate(flat.tolist()):
        sides = []
        for sign in (1, -1):
            flat[i] = center + sign * step
            logprob_T = Categorical(logits=hidden @ head.T).log_prob(tokens.target_T)
            sides.append(-(tokens.weight_T * fixed_T * logprob_T).sum().item())
        flat[i] = center
        assert actual.view(-1)[i].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-6, abs=1e-7)


def enumerated(top_k, seed, distance):
    """Every token as a sample: its probability, and the gradient that the loss gives it; and reverse KL's own.

    Args:
        top_k: The loss's.
        seed: Of the two distributions.
        distance: Standard deviation of the teacher's logits around the student's.
    """
    g = torch.Generator().manual_seed(seed)
    logits_V = torch.randn(VOCABULARY, dtype=torch.float64, generator=g).requires_grad_()
    teacher_V = logits_V.detach() + distance * torch.randn(VOCABULARY, dtype=torch.float64, generator=g)
    kl = kl_divergence(Categorical(logits=logits_V), Categorical(logits=teacher_V))
    (exact_V,) = torch.autograd.grad(kl, logits_V)

    every_V, one_hot_VV = torch.arange(VOCABULARY), torch.eye(VOCABULARY, dtype=torch.float64)
    hidden_VV = logits_V.detach().expand(VOCABULARY, -1).clone().requires_grad_()  # the head is the identity
    ones_V = torch.ones(VOCABULARY, dtype=torch.float64)
    tokens = LossInputs(ones_V, every_V < 0, every_V, ones_V, ones_V, 1.0, every_V)
    teacher = ModelOutput(teacher_V.expand(VOCABULARY, -1), one_hot_VV)
    output = VOPDLoss(top_k, chunk_size=5)(ModelOutput(hidden_VV, one_hot_VV), teacher, tokens)
    (gradient_VV,) = torch.autograd.grad(output.loss, hidden_VV)
    return logits_V.detach().softmax(-1), gradient_VV, exact_V


def variance(probability_V, gradient_VV):
    """Sum over the logits of the variances of the gradient."""
    mean_V = probability_V @ gradient_VV
    return (probability_V @ (gradient_VV - mean_V).square().sum(-1)).item()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("top_k", [None, 0, 1, 5])
def test_the_expected_gradient_is_that_of_reverse_kl_whatever_the_baseline(top_k, seed):
    probability_V, gradient_VV, exact_V = enumerated(top_k, seed, distance=1.0)
    torch.testing.assert_close(probability_V @ gradient_VV, exact_V, **CLOSE)


def completions(student_PV, row_of, length):
    """Every completion of a policy with a row of logits per prefix, up to a length, and its probability; 0 ends it."""
    ended, running = [], [((), 1.0)]
    while running:
        prefix, probability = running.pop()
        if len(prefix) == length or 0 in prefix:
            ended.append((prefix, probability))
        else:
            shares = student_PV[row_of[prefix]].softmax(-1).tolist()
            running += [((*prefix, token), probability * share) for token, share in enumerate(shares)]
    return ended


def expected_gradient(loss, others, vocabulary=3, length=3):
    """The mean over all completions of the gradient of one of them, in a step whose other ones have mean length.

    Args:
        loss: Any loss of the signal context.
        others: Number of other completions in the step.
        vocabulary: Of the policy.
        length: Of the longest completion.
    """
    prefixes = [p for n in range(length) for p in itertools.product(range(1, vocabulary), repeat=n)]
    row_of = {prefix: index for index, prefix in enumerate(prefixes)}
    student_PV, offset_PV = torch.randn(
        2, len(prefixes), vocabulary, generator=torch.Generator().manual_seed(0)
    ).double()
    ended = completions(student_PV, row_of, length)
    assert sum(probability for _, probability in ended) == pytest.approx(1)
    mean_length = sum(probability * len(completion) for completion, probability in ended)
    head, total_PV = torch.eye(vocabulary, dtype=torch.float64), torch.zeros_like(student_PV)
    for completion, probability in ended:
        size, leaf_PV = len(completion), student_PV.clone().requires_grad_()
        rows = [row_of[completion[:position]] for position in range(size)]
        denominators = Denominators(1.0 + others, size + others * mean_length)
        weight_T = loss.token_weights(torch.ones(1, size, dtype=torch.bool), torch.ones(1, size), denominators).double()
        target_T, ones_T = torch.tensor(completion), torch.ones(size, dtype=torch.float64)
        tokens = LossInputs(weight_T, target_T < 0, target_T, ones_T, ones_T, 1.0, torch.zeros_like(target_T))
        teacher_PV = student_PV + offset_PV
        loss(ModelOutput(leaf_PV[rows], head), ModelOutput(teacher_PV[rows], head), tokens).loss.backward()
        total_PV += probability * leaf_PV.grad * (1 + others)
    return total_PV


@pytest.mark.parametrize("top_k", [None, 0, 1])
def test_over_whole_completions_the_expected_gradient_is_reverse_kls_if_every_token_counts_alike(top_k):
    """A sampled end makes the completion shorter: whatever divides by its length knows the sampled token."""

    def relative_error(reduction, others):
        exact_PV = expected_gradient(DistillationLoss(reduction=reduction), others)
        return ((expected_gradient(VOPDLoss(top_k, reduction), others) - exact_PV).norm() / exact_PV.norm()).item()

    assert VOPDLoss().reduction == "token_mean"
    assert relative_error("token_mean", 31) < 0.02
    assert relative_error("token_mean", 319) < 0.002, "the rest is the share of the own length in the denominator"
    assert relative_error("sequence_mean", 319) > 0.3
    if top_k is None:  # the numbers of docs/methods.md
        assert relative_error("sequence_mean", 319) == pytest.approx(0.445, abs=0.001)
        assert relative_error("token_mean", 31) == pytest.approx(0.0087, abs=0.0001)
        assert relative_error("token_mean", 319) == pytest.approx(0.00086, abs=0.00001)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("top_k", [None, 1, 5])
def test_the_baseline_lowers_the_variance_of_the_sampled_gradient(top_k, seed):
    with_baseline, plain = (variance(*enumerated(k, seed, distance=3.0)[:2]) for k in (top_k, 0))
    assert with_baseline < plain


@pytest.mark.parametrize("distance", [0.3, 1.0])
@pytest.mark.parametrize("top_k", [None, 1, 5])
def test_close_distributions_have_less_variance_with_the_baseline_on_the_whole(top_k, distance):
    """Not each of them: the baseline with the least variance is not the reward's mean."""
    variances = [[variance(*enumerated(k, seed, distance)[:2]) for k in (top_k, 0)] for seed in range(50)]
    assert sum(with_baseline for with_baseline, _ in variances) < sum(plain for _, plain in variances)


def test_the_expectation_over_earlier_weights_is_right_with_importance_sampling():
    """Tokens are sampled from another distribution than the student's; an uncapped ratio gives the gradient back."""
    hidden, head, teacher, _ = make_case(tokens=1)
    g = torch.Generator().manual_seed(9)
    sampler = Categorical(logits=torch.randn(VOCABULARY, dtype=torch.float64, generator=g))
    every_V = torch.arange(VOCABULARY)
    many = ModelOutput(hidden.detach().expand(VOCABULARY, -1), head)
    other = ModelOutput(teacher.hidden_TH.expand(VOCABULARY, -1), teacher.head_VH)
    tokens = LossInputs(sampler.probs, every_V < 0, every_V, sampler.logits, sampler.logits, 1.0, every_V)
    loss = VOPDLoss(importance_sampling=ImportanceSampling("token", cap=1e6))
    output = loss(many, other, tokens)
    (actual,) = torch.autograd.grad(output.loss, head)
    kl = kl_divergence(Categorical(logits=hidden @ head.T), Categorical(logits=teacher.hidden_TH @ teacher.head_VH.T))
    (expected,) = torch.autograd.grad(kl.sum(), head)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)  # ratios are float32
    assert set(output.totals) == set(loss.logged)


def test_tokens_without_weight_have_no_part_even_where_the_divergence_is_infinite():
    hidden, head, _, tokens = make_case()
    impossible = torch.zeros(VOCABULARY, 7, dtype=torch.float64)
    impossible[1] = -torch.inf
    teacher = ModelOutput(torch.ones(40, 7, dtype=torch.float64), impossible)
    silent = replace(tokens, weight_T=torch.zeros_like(tokens.weight_T))
    loss = VOPDLoss()(ModelOutput(hidden, head), teacher, silent).loss
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (hidden, head)))
    assert not VOPDLoss()(ModelOutput(hidden, head), teacher, tokens).loss.isfinite()


def test_autocast_bfloat16_and_float32():
    hidden, head, teacher, tokens = make_case(dtype=torch.float32)
    expected, *_ = dense(hidden, head, teacher, tokens)
    output = VOPDLoss()(ModelOutput(hidden, head), teacher, tokens)
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = VOPDLoss(chunk_size=8)(ModelOutput(hidden, head), teacher, tokens)
        expected, *_ = dense(hidden, head, teacher, tokens)
    assert output.loss.dtype == torch.float32
    actual = torch.autograd.grad(output.loss, (hidden, head))
    for a, b in zip(actual, torch.autograd.grad(expected, (hidden, head)), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("top_k", [None, 4])
def test_no_tensor_grows_with_tokens_times_vocabulary(top_k, largest_tensor):
    def largest(tokens, run):
        case = make_case(tokens=tokens, vocabulary=500)
        with largest_tensor() as mode:
            run(*case).backward()
        return mode.largest

    def chunked(hidden, head, teacher, streams):
        return VOPDLoss(top_k, chunk_size=8)(ModelOutput(hidden, head), teacher, streams).loss

    assert largest(64, lambda *case: dense(*case, top_k)[0]) == 64 * 500
    for tokens in (64, 256):
        assert largest(tokens, chunked) == 8 * 500


def test_it_cannot_meet_revised_completions():
    loss = VOPDLoss()
    assert loss.needs_sampled
    assert loss.needs_teacher
    for method in (SDFT(), SDPO()):
        assert DistillationModule(method=method, loss=loss).loss is loss
    with pytest.raises(ConfigError, match=r"VOPDLoss.*CaOPD revises.*DistillationLoss"):
        DistillationModule(method=CaOPD(), loss=loss)


@pytest.mark.parametrize(
    ("temperature", "truncated", "steps", "message"),
    [
        (0.7, False, 1, "temperature 0.7.*`data.sampling`"),
        (0.0, False, 1, "temperature 0.0"),
        (1.0, True, 1, "top_p or top_k"),
        (1.0, False, 2, "one optimizer step.*2.*accumulate_grad_batches"),
    ],
)
def test_samples_of_another_distribution_are_refused(temperature, truncated, steps, message):
    with pytest.raises(ConfigError, match=message):
        VOPDLoss().check_sampling(temperature, truncated, steps)


def test_samples_of_the_student_are_taken():
    VOPDLoss().check_sampling(1.0, False, 1)
    VOPDLoss(importance_sampling=ImportanceSampling()).check_sampling(1.0, False, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline_top_k": -1}, "`baseline_top_k`.*0 or larger.*-1"),
        ({"reduction": "mean"}, "'sequence_mean', 'token_mean'.*'mean'"),
    ],
)
def test_bad_settings_fail_at_construction(settings, message):
    with pytest.raises(ConfigError, match=message):
        VOPDLoss(**settings)


def test_divergence_and_policy_gradient_agree_where_the_student_is_the_teacher():
    """Both stand still there, and only there does the sampled gradient have no variance at all."""
    hidden, head, _, tokens = make_case()
    same = ModelOutput(hidden.detach(), head.detach())
    for loss in (VOPDLoss(), DistillationLoss()):
        output = loss(ModelOutput(hidden, head), same, tokens)
        for gradient in torch.autograd.grad(output.loss, (hidden, head)):
            torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
