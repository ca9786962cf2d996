"""token_divergence against closed forms, loops in float64, torch.distributions and finite differences."""

import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from caopd.errors import ConfigError
from caopd.losses import Divergence, token_divergence
from caopd.losses.divergence import log_probabilities, value_and_logit_gradient

ALL = [
    Divergence("reverse_kl"),
    Divergence("forward_kl"),
    Divergence("jsd"),
    Divergence("jsd", teacher_weight=0.2),
    Divergence("reverse_kl", top_k=3),
    Divergence("forward_kl", top_k=1),
    Divergence("jsd", teacher_weight=0.2, top_k=2),
    Divergence("reverse_kl", top_k=50),
]


def loop_divergence(student_logits, teacher_logits, divergence):
    """One token's divergence by the definition, with Python floats."""

    def softmax(logits):
        top = max(logits)
        exps = [math.exp(x - top) for x in logits]
        return [x / sum(exps) for x in exps]

    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    s, t = softmax(student_logits), softmax(teacher_logits)
    if divergence.top_k is not None:
        order = sorted(range(len(s)), key=lambda v: -s[v])
        events = [*([v] for v in order[: divergence.top_k]), order[divergence.top_k :]]
        s, t = ([sum(p[v] for v in event) for event in events] for p in (s, t))
    w = divergence.teacher_weight
    m = [w * b + (1 - w) * a for a, b in zip(s, t, strict=True)]
    return {"reverse_kl": kl(s, t), "forward_kl": kl(t, s), "jsd": w * kl(t, m) + (1 - w) * kl(s, m)}[divergence.name]


@pytest.mark.parametrize("divergence", ALL, ids=str)
def test_equals_the_loop(divergence):
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 5, 11, dtype=torch.float64, generator=generator)
    expected = [loop_divergence(s.tolist(), t.tolist(), divergence) for s, t in zip(student, teacher, strict=True)]
    actual = token_divergence(student, teacher, divergence)
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_kl_equals_torch_distributions():
    generator = torch.Generator().manual_seed(1)
    student, teacher = 3 * torch.randn(2, 6, 13, generator=generator)
    s, t = Categorical(logits=student), Categorical(logits=teacher)
    torch.testing.assert_close(token_divergence(student, teacher, Divergence("reverse_kl")), kl_divergence(s, t))
    torch.testing.assert_close(token_divergence(student, teacher, Divergence("forward_kl")), kl_divergence(t, s))


def test_direction_on_an_asymmetric_pair():
    """The student puts 0.01 where the teacher has 1/2: forward KL punishes that more than reverse."""
    student = torch.tensor([[0.99, 0.01]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    reverse = token_divergence(student, teacher, Divergence("reverse_kl")).item()
    forward = token_divergence(student, teacher, Divergence("forward_kl")).item()
    assert reverse == pytest.approx(0.99 * math.log(1.98) + 0.01 * math.log(0.02))
    assert forward == pytest.approx(0.5 * math.log(0.5 / 0.99) + 0.5 * math.log(50))
    assert forward > 2 * reverse


def test_jsd_weight_belongs_to_the_teacher():
    """Disjoint one-hot distributions: KL(T||M) = -log w, KL(S||M) = -log(1-w)."""
    student, teacher = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    w = 0.2
    expected = -w * math.log(w) - (1 - w) * math.log(1 - w)
    assert token_divergence(student, teacher, Divergence("jsd", w)).item() == pytest.approx(expected)
    # M is 0.2 T + 0.8 S, so a student of mass 1 next to a uniform teacher has M = (0.9, 0.1)
    uniform = torch.zeros(1, 2)
    expected = w * (0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)) + (1 - w) * math.log(1 / 0.9)
    assert token_divergence(student, uniform, Divergence("jsd", w)).item() == pytest.approx(expected)


@pytest.mark.parametrize("divergence", ALL, ids=str)
def test_gradients_pass_gradcheck_and_the_closed_form_agrees(divergence):
    generator = torch.Generator().manual_seed(2)
    student, teacher = torch.randn(2, 4, 7, dtype=torch.float64, generator=generator)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: token_divergence(s, teacher, divergence), (student,))
    value = token_divergence(student, teacher, divergence)
    (expected,) = torch.autograd.grad(value.sum(), student)
    with torch.no_grad():
        actual_value, actual = value_and_logit_gradient(
            log_probabilities(student), log_probabilities(teacher), divergence
        )
    torch.testing.assert_close(actual_value, value.detach(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)


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


def events(student, teacher, top_k):
    """Both sets of logits, those of all but the student's k most likely tokens made one, row by row."""
    if top_k is None:
        return student, teacher
    rows = [[], []]
    for s, t in zip(student, teacher, strict=True):
        order = s.argsort(descending=True)
        for row, x in zip(rows, (s, t), strict=True):
            row.append(torch.cat([x[order[:top_k]], x[order[top_k:]].logsumexp(-1, keepdim=True)]))
    return tuple(torch.stack(row) for row in rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("divergence", ALL, ids=str)
def test_extreme_logits(divergence, dtype):
    """No NaN where the divergence is finite; inf exactly where one has mass that the other lacks."""
    size = len(EXTREME)
    student = EXTREME.to(dtype).repeat_interleave(size, 0).requires_grad_()
    teacher = EXTREME.to(dtype).repeat(size, 1)
    value = token_divergence(student, teacher, divergence)
    pair = events(student.detach(), teacher, divergence.top_k)
    s, t = (logits.softmax(-1) for logits in pair)
    lacking = {
        "reverse_kl": (s > 0) & (pair[1] == -torch.inf),
        "forward_kl": (t > 0) & (pair[0] == -torch.inf),
        "jsd": torch.zeros_like(s, dtype=torch.bool),
    }[divergence.name].any(-1)
    assert not value.isnan().any()
    torch.testing.assert_close(value.isinf(), lacking)
    (gradient,) = torch.autograd.grad(value[~lacking].sum(), student)
    assert gradient[~lacking].isfinite().all()
    closed_value, closed = value_and_logit_gradient(
        log_probabilities(student.detach()), log_probabilities(teacher), divergence
    )
    torch.testing.assert_close(closed_value, value.detach())
    # A log-probability of -1e4 is rounded to 1e-3 in float32, and autograd takes the exponential of a sum with it.
    close = 1e-3 if divergence.top_k and dtype == torch.float32 else 1e-6
    torch.testing.assert_close(closed[~lacking], gradient[~lacking], rtol=1e-5, atol=close)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_read_as_float32(dtype):
    student, teacher = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(3)).to(dtype)
    value = token_divergence(student, teacher, Divergence())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, token_divergence(student.float(), teacher.float(), Divergence()))


@pytest.mark.parametrize("name", ["reverse_kl", "forward_kl", "jsd"])
def test_more_tokens_see_more_and_all_but_one_see_everything(name):
    generator = torch.Generator().manual_seed(4)
    student, teacher = torch.randn(2, 30, 9, dtype=torch.float64, generator=generator)
    values = [token_divergence(student, teacher, Divergence(name, top_k=k)) for k in range(1, 9)]
    values.append(token_divergence(student, teacher, Divergence(name)))
    assert (values[0] > 0).all()
    for fewer, more in itertools.pairwise(values):
        assert (fewer < more + 1e-12).all()
    torch.testing.assert_close(values[-2], values[-1], rtol=1e-12, atol=1e-14)


def test_bad_settings_name_what_is_allowed():
    with pytest.raises(ConfigError, match=r"`top_k`.*1 or larger.*got 0"):
        Divergence(top_k=0)
    with pytest.raises(ConfigError, match=r"'reverse_kl', 'forward_kl', 'jsd'.*'reverse_kld'"):
        Divergence("reverse_kld")
    for weight in (0.0, 1.0, 1.5, -0.1, math.nan):
        with pytest.raises(ConfigError, match=r"strictly between 0 and 1"):
            Divergence("jsd", teacher_weight=weight)
