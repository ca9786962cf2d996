"""How far apart the next-token distributions of student and teacher are: dense, the oracle of the rest.

Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from caopd.errors import ConfigError

DivergenceName = Literal["reverse_kl", "forward_kl", "jsd"]


@dataclass(frozen=True, slots=True)
class Divergence:
    """Which divergence between student S and teacher T to take, per token.

    - ``reverse_kl``: KL(S||T) = sum_v S_v (log S_v - log T_v), mode seeking (CaOPD, arXiv 2604.16830, eq. 7);
    - ``forward_kl``: KL(T||S) = sum_v T_v (log T_v - log S_v), mode covering;
    - ``jsd``: w KL(T||M) + (1-w) KL(S||M) with M = w T + (1-w) S, bounded by -w log w - (1-w) log(1-w).

    With ``top_k`` the sums are over k + 1 events: each of the student's k most likely tokens, and any other token. That
    is never more than the divergence over the full vocabulary, and blind to how the other tokens share what is left.

    Attributes:
        name: One of the three above.
        teacher_weight: The mixture weight w of ``jsd``, strictly between 0 and 1; the others do not read it.
        top_k: k; None takes the full vocabulary.

    Raises:
        ConfigError: A name that is none of the three, a weight outside (0, 1), or a k below 1.

    Example:
        >>> Divergence("jsd", teacher_weight=0.25)
        Divergence(name='jsd', teacher_weight=0.25, top_k=None)
        >>> Divergence("reverse-kl")
        Traceback (most recent call last):
        ...
        caopd.errors.ConfigError: Expected one of 'reverse_kl', 'forward_kl', 'jsd', but got 'reverse-kl'.
    """

    name: DivergenceName = "reverse_kl"
    teacher_weight: float = 0.5
    top_k: int | None = None

    def __post_init__(self) -> None:
        allowed = get_args(DivergenceName)
        if self.name not in allowed:
            raise ConfigError(f"Expected one of {', '.join(map(repr, allowed))}, but got {self.name!r}.")
        if not 0.0 < self.teacher_weight < 1.0:
            raise ConfigError(
                "Expected the teacher's weight in the Jensen-Shannon mixture to be strictly between 0 and 1, "
                f"but got {self.teacher_weight!r}. For the limits use 'reverse_kl' or 'forward_kl'."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(
                f"Expected `top_k` to be 1 or larger, or null for the full vocabulary, but got {self.top_k}."
            )


def token_divergence(student_logits_TV: Tensor, teacher_logits_TV: Tensor, divergence: Divergence) -> Tensor:
    """Return the divergence of every token's two next-token distributions, in nats.

    Half-precision logits are read as float32, float64 stays float64. Differentiable with respect to both
    arguments. A logit may be ``-inf`` (vocabulary that is masked out), and 0 log 0 = 0: a token whose
    probability is zero, or too small for the float type, adds nothing and gets no gradient from that term. A
    Kullback-Leibler divergence whose second distribution is zero where the first is not *is* infinite: the
    value is then ``inf``, never a large number, and its gradient is not defined (NaN). ``jsd`` is always
    finite.

    Args:
        student_logits_TV: Unnormalised log-probabilities of the student, floating point.
        teacher_logits_TV: The same of the teacher.
        divergence: Which divergence.

    Returns:
        Tensor [T] of float32 or float64. Rounding can leave a value of -1e-7 where it should be zero.

    Example:
        The student is uniform over two tokens, the teacher gives them 3/4 and 1/4:

        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]]).log()
        >>> token_divergence(student, teacher, Divergence("reverse_kl"))  # (log 2/3 + log 2) / 2
        tensor([0.1438])
        >>> token_divergence(student, teacher, Divergence("forward_kl"))  # 3/4 log 3/2 + 1/4 log 1/2
        tensor([0.1308])
    """
    return divergence_of(log_probabilities(student_logits_TV), log_probabilities(teacher_logits_TV), divergence)


def divergence_of(student_TV: Tensor, teacher_TV: Tensor, divergence: Divergence) -> Tensor:
    """Return :func:`token_divergence` from log-probabilities, [T] in nats."""
    if divergence.top_k is not None:
        student_TV, teacher_TV, _ = top_k_and_rest(student_TV, teacher_TV, divergence.top_k)
    if divergence.name == "reverse_kl":
        return expectation(student_TV.exp(), student_TV - teacher_TV)
    if divergence.name == "forward_kl":
        return expectation(teacher_TV.exp(), teacher_TV - student_TV)
    mixture_TV = log_mixture(student_TV, teacher_TV, divergence.teacher_weight)
    return divergence.teacher_weight * expectation(teacher_TV.exp(), teacher_TV - mixture_TV) + (
        1.0 - divergence.teacher_weight
    ) * expectation(student_TV.exp(), student_TV - mixture_TV)


def log_probabilities(logits_TV: Tensor) -> Tensor:
    """Return log softmax over the vocabulary, at least in float32."""
    return torch.log_softmax(logits_TV, dim=-1, dtype=torch.promote_types(logits_TV.dtype, torch.float32))


def expectation(probability_TV: Tensor, value_TV: Tensor) -> Tensor:
    """Return sum_v p_v x_v, where p_v = 0 adds nothing, whatever x_v is (0 log 0 = 0).

    Example:
        >>> expectation(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, -torch.inf]]))
        tensor([2.])
    """
    return (probability_TV * value_TV.masked_fill(probability_TV == 0, 0.0)).sum(-1)


def log_mixture(student_TV: Tensor, teacher_TV: Tensor, teacher_weight: float) -> Tensor:
    """Return log(w T + (1-w) S) from log-probabilities.

    Log-probabilities of ``-inf`` are first raised to a finite floor far below any other: the derivative of
    log(e^x + e^y) at x = y = -inf would be 0/0.
    """
    floor = _floor(student_TV)
    return torch.logaddexp(
        teacher_TV.clamp(min=floor) + math.log(teacher_weight),
        student_TV.clamp(min=floor) + math.log1p(-teacher_weight),
    )


def top_k_and_rest(student_TV: Tensor, teacher_TV: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both distributions over the student's k most likely tokens and a bucket for the rest, and those tokens.

    Args:
        student_TV: Log-probabilities of the student.
        teacher_TV: Log-probabilities of the teacher.
        top_k: k; all tokens where there are fewer, with an empty bucket.

    Returns:
        Log-probabilities [T, k + 1] of student and teacher, the bucket last, and token ids [T, k].

    Example:
        >>> student, teacher = torch.tensor([[0.2, 0.5, 0.3]]).log(), torch.tensor([[0.1, 0.3, 0.6]]).log()
        >>> student, teacher, tokens = top_k_and_rest(student, teacher, 1)
        >>> student.exp(), teacher.exp(), tokens
        (tensor([[0.5000, 0.5000]]), tensor([[0.3000, 0.7000]]), tensor([[1]]))
    """
    top_Tk = student_TV.topk(min(top_k, student_TV.shape[-1]), dim=-1).indices

    def merged(logprob_TV: Tensor) -> Tensor:
        rest_T1 = _without(logprob_TV, top_Tk).logsumexp(-1, keepdim=True)
        rest_T1 = rest_T1.masked_fill(rest_T1 < _floor(rest_T1) / 2, -torch.inf)
        return torch.cat([logprob_TV.gather(-1, top_Tk), rest_T1], dim=-1)

    return merged(student_TV), merged(teacher_TV), top_Tk


def _without(logprob_TV: Tensor, tokens_Tk: Tensor) -> Tensor:
    """Return the log-probabilities with the given tokens, and all of ``-inf``, at the floor."""
    floor = _floor(logprob_TV)
    return logprob_TV.clamp(min=floor).scatter(-1, tokens_Tk, floor)


def _floor(x: Tensor) -> float:
    """Return a finite number far below any log-probability; at ``-inf`` some derivatives would be 0/0."""
    return torch.finfo(x.dtype).min / 4


def value_and_logit_gradient(student_TV: Tensor, teacher_TV: Tensor, divergence: Divergence) -> tuple[Tensor, Tensor]:
    """Return the divergence [T] and its gradient with respect to the student's logits [T, V], in closed form.

    With w the teacher's weight and M = w T + (1-w) S:

    - reverse KL: S (log S - log T - KL(S||T));
    - forward KL: S - T;
    - JSD: (1-w) S (log S - log M - KL(S||M)).

    With ``top_k`` these are the gradients with respect to the logits of the k + 1 events. The logit of the rest is log
    sum exp of its tokens' logits: each of them has its share S_v / S_rest of the rest's gradient.

    Args:
        student_TV: Log-probabilities of the student.
        teacher_TV: Log-probabilities of the teacher.
        divergence: Which divergence.
    """
    if divergence.top_k is None:
        return _value_and_gradient(student_TV, teacher_TV, divergence)
    student_Tk1, teacher_Tk1, top_Tk = top_k_and_rest(student_TV, teacher_TV, divergence.top_k)
    value_T, gradient_Tk1 = _value_and_gradient(student_Tk1, teacher_Tk1, divergence)
    gradient_TV = _without(student_TV, top_Tk).softmax(-1).mul_(gradient_Tk1[:, -1:])
    return value_T, gradient_TV.scatter_(-1, top_Tk, gradient_Tk1[:, :-1])


def _value_and_gradient(student_TV: Tensor, teacher_TV: Tensor, divergence: Divergence) -> tuple[Tensor, Tensor]:
    probability_TV = student_TV.exp()
    if divergence.name == "forward_kl":
        teacher_probability_TV = teacher_TV.exp()
        value_T = expectation(teacher_probability_TV, teacher_TV - student_TV)
        return value_T, probability_TV.sub_(teacher_probability_TV)
    if divergence.name == "reverse_kl":
        value_T, gradient_TV = _kl_and_gradient(probability_TV, student_TV - teacher_TV)
        return value_T, gradient_TV
    mixture_TV = log_mixture(student_TV, teacher_TV, divergence.teacher_weight)
    student_share = 1.0 - divergence.teacher_weight
    teacher_value_T = expectation(teacher_TV.exp(), teacher_TV - mixture_TV)
    student_value_T, gradient_TV = _kl_and_gradient(probability_TV, student_TV - mixture_TV)
    value_T = divergence.teacher_weight * teacher_value_T + student_share * student_value_T
    return value_T, gradient_TV.mul_(student_share)


def _kl_and_gradient(probability_TV: Tensor, log_ratio_TV: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL = sum_v p_v r_v and p (r - KL), overwriting the log-ratios r."""
    log_ratio_TV.masked_fill_(probability_TV == 0, 0.0)
    value_T = (probability_TV * log_ratio_TV).sum(-1)
    return value_T, log_ratio_TV.sub_(value_T.unsqueeze(-1)).mul_(probability_TV)
