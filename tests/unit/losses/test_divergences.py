"""The divergences against closed forms and torch.distributions, at their limits, and what a class of one's own owes."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from caopd.errors import ConfigError
from caopd.losses import JSD, Divergence, ForwardKL, ReverseKL, TopK
from caopd.losses.distributions import log_probabilities

WHOLE = [ReverseKL(), ForwardKL(), JSD(), JSD(teacher_weight=0.2)]
ALL = [*WHOLE, TopK(ReverseKL(), 3), TopK(ForwardKL(), 1), TopK(JSD(teacher_weight=0.2), 2), TopK(ReverseKL(), 50)]


def test_kl_equals_torch_distributions():
    generator = torch.Generator().manual_seed(1)
    student, teacher = 3 * torch.randn(2, 6, 13, generator=generator)
    s, t = Categorical(logits=student), Categorical(logits=teacher)
    torch.testing.assert_close(ReverseKL()(student, teacher), kl_divergence(s, t))
    torch.testing.assert_close(ForwardKL()(student, teacher), kl_divergence(t, s))


def test_direction_on_an_asymmetric_pair():
    """The student puts 0.01 where the teacher has 1/2: forward KL punishes that more than reverse."""
    student = torch.tensor([[0.99, 0.01]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    reverse = ReverseKL()(student, teacher).item()
    forward = ForwardKL()(student, teacher).item()
    assert reverse == pytest.approx(0.99 * math.log(1.98) + 0.01 * math.log(0.02))
    assert forward == pytest.approx(0.5 * math.log(0.5 / 0.99) + 0.5 * math.log(50))
    assert forward > 2 * reverse


def test_jsd_weight_belongs_to_the_teacher():
    """Disjoint one-hot distributions: KL(T||M) = -log w, KL(S||M) = -log(1-w)."""
    student, teacher = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    w = 0.2
    expected = -w * math.log(w) - (1 - w) * math.log(1 - w)
    assert JSD(w)(student, teacher).item() == pytest.approx(expected)
    # M is 0.2 T + 0.8 S, so a student of mass 1 next to a uniform teacher has M = (0.9, 0.1)
    uniform = torch.zeros(1, 2)
    expected = w * (0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)) + (1 - w) * math.log(1 / 0.9)
    assert JSD(w)(student, uniform).item() == pytest.approx(expected)


EXTREME = torch.tensor(
    [
        [1e4, -1e4, 0.0, 3.0],
        [-1e4, 1e4, 0.0, 3.0],
        [0.0, -torch.inf, 1.0, -torch.inf],
        [1e4, -torch.inf, -1e4, -torch.inf],
        [0.0, -torch.inf, -torch.inf, -torch.inf],
        [1.0, 2.0, 3.0, 4.0],
    ]
)


def split(divergence):
    """The divergence of the events, and k; None for all tokens."""
    return (divergence.divergence, divergence.k) if isinstance(divergence, TopK) else (divergence, None)


def events(student, teacher, k):
    """Both sets of logits, those of all but the student's k most likely tokens made one, row by row."""
    if k is None:
        return student, teacher
    rows = [[], []]
    for s, t in zip(student, teacher, strict=True):
        order = s.argsort(descending=True)
        for row, x in zip(rows, (s, t), strict=True):
            row.append(torch.cat([x[order[:k]], x[order[k:]].logsumexp(-1, keepdim=True)]))
    return tuple(torch.stack(row) for row in rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("divergence", ALL, ids=str)
def test_extreme_logits(divergence, dtype):
    """No NaN where the divergence is finite; inf exactly where one has mass that the other lacks."""
    size = len(EXTREME)
    student = EXTREME.to(dtype).repeat_interleave(size, 0).requires_grad_()
    teacher = EXTREME.to(dtype).repeat(size, 1)
    value = divergence(student, teacher)
    of_events, k = split(divergence)
    pair = events(student.detach(), teacher, k)
    s, t = (logits.softmax(-1) for logits in pair)
    lacking = {
        ReverseKL: (s > 0) & (pair[1] == -torch.inf),
        ForwardKL: (t > 0) & (pair[0] == -torch.inf),
        JSD: torch.zeros_like(s, dtype=torch.bool),
    }[type(of_events)].any(-1)
    assert not value.isnan().any()
    torch.testing.assert_close(value.isinf(), lacking)
    (gradient,) = torch.autograd.grad(value[~lacking].sum(), student)
    assert gradient[~lacking].isfinite().all()
    closed_value, closed = divergence.values_and_gradients(
        log_probabilities(student.detach()), log_probabilities(teacher)
    )
    torch.testing.assert_close(closed_value, value.detach())
    # A log-probability of -1e4 is rounded to 1e-3 in float32, and autograd takes the exponential of a sum with it.
    close = 1e-3 if k and dtype == torch.float32 else 1e-6
    torch.testing.assert_close(closed[~lacking], gradient[~lacking], rtol=1e-5, atol=close)


class Mean(Divergence):
    """Over the tokens, too, by mistake."""

    def values(self, student_TV, teacher_TV):
        return (student_TV - teacher_TV).square().mean()


class Unsummed(Divergence):
    def values(self, student_TV, teacher_TV):
        return (student_TV - teacher_TV).square()


class Detached(Divergence):
    def values(self, student_TV, teacher_TV):
        return ReverseKL().values(student_TV.detach(), teacher_TV)


@pytest.mark.parametrize(("divergence", "shape"), [(Mean(), r"\[\]"), (Unsummed(), r"\[3, 5\]")])
def test_one_of_ones_own_gives_a_value_per_token(divergence, shape):
    student, teacher = torch.randn(2, 3, 5)
    for compute in (divergence, divergence.values_and_gradients, TopK(divergence, 4).values_and_gradients):
        with pytest.raises(ConfigError, match=rf"{type(divergence).__name__} to return.*3 tokens.*{shape}.*vocabulary"):
            compute(student, teacher)


def test_one_of_ones_own_can_be_differentiated():
    student, teacher = torch.randn(2, 3, 5)
    with pytest.raises(ConfigError, match=r"Detached.*differentiate.*`detach`"):
        Detached().values_and_gradients(student, teacher)


@pytest.mark.parametrize("weight", [0.0, 1.0, 1.5, -0.1, math.nan])
def test_the_weight_of_the_mixture_is_between_0_and_1(weight):
    with pytest.raises(ConfigError, match=r"`teacher_weight` of JSD.*strictly between 0 and 1.*ReverseKL or ForwardKL"):
        JSD(weight)
