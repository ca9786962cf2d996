"""How far apart the next-token distributions of student and teacher are, token by token.

Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from caopd.errors import ConfigError, name_of
from caopd.losses.distributions import expectation, floor_of, log_probabilities


class Divergence(ABC):
    """How far the student's next-token distribution S is from the teacher's T, at every token.

    A class of your own implements :meth:`values`, and autograd takes its gradient. Where the gradient has a closed
    form, :meth:`values_and_gradients` may give it: that saves time and memory.

    Example:
        Half the sum of the absolute differences of the probabilities, the total variation:

        >>> class TotalVariation(Divergence):
        ...     def values(self, student_TV, teacher_TV):
        ...         return (student_TV.exp() - teacher_TV.exp()).abs().sum(-1) / 2
        >>> TotalVariation()(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]]).log())
        tensor([0.2500])
    """

    @abstractmethod
    def values(self, student_TV: Tensor, teacher_TV: Tensor) -> Tensor:
        """Return the divergence of every token's two distributions, [T]: 0 where they are equal, else above 0.

        Args:
            student_TV: Log-probabilities of the student, float32 or float64; what is returned is differentiated with
                respect to them. ``-inf`` is a probability of 0.
            teacher_TV: Log-probabilities of the teacher, likewise.
        """

    def values_and_gradients(self, student_TV: Tensor, teacher_TV: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence [T] and its gradient with respect to the student's logits [T, V], by autograd.

        A class that overrides this returns a gradient tensor of its own, which is changed in place afterwards.

        Args:
            student_TV: Log-probabilities of the student, float32 or float64.
            teacher_TV: Log-probabilities of the teacher, likewise.

        Raises:
            ConfigError: If :meth:`values` does not return a differentiable value per token.
        """
        with torch.enable_grad():
            leaf_TV = student_TV.detach().requires_grad_()
            value_T = self.values(leaf_TV, teacher_TV)
            self._check(value_T, student_TV)
            if not value_T.requires_grad:
                raise ConfigError(
                    f"Expected {name_of(self)} to return values that autograd can differentiate, but they do not "
                    "depend on the student's log-probabilities: compute `values` with torch alone, without `detach`."
                )
            (gradient_TV,) = torch.autograd.grad(value_T.sum(), leaf_TV)
        return value_T.detach(), gradient_TV - student_TV.exp() * gradient_TV.sum(-1, keepdim=True)

    def __call__(self, student_logits_TV: Tensor, teacher_logits_TV: Tensor) -> Tensor:
        """Return the divergence of every token's two next-token distributions; those of this package are in nats.

        Half-precision logits are read as float32, float64 stays float64. Differentiable with respect to both
        arguments. A logit may be ``-inf`` (vocabulary that is masked out), and 0 log 0 = 0: a token whose
        probability is zero, or too small for the float type, adds nothing and gets no gradient from that term. A
        Kullback-Leibler divergence whose second distribution is zero where the first is not *is* infinite: the
        value is then ``inf``, never a large number, and its gradient is not defined (NaN).

        Args:
            student_logits_TV: Unnormalised log-probabilities of the student, floating point.
            teacher_logits_TV: The same of the teacher.

        Returns:
            Tensor [T] of float32 or float64. Rounding can leave a value of about -1e-7 that should be zero.

        Raises:
            ConfigError: If :meth:`values` does not return one value per token.

        Example:
            The student is uniform over two tokens, the teacher gives them 3/4 and 1/4:

            >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]]).log()
            >>> ReverseKL()(student, teacher)  # (log 2/3 + log 2) / 2
            tensor([0.1438])
            >>> ForwardKL()(student, teacher)  # 3/4 log 3/2 + 1/4 log 1/2
            tensor([0.1308])
        """
        value_T = self.values(log_probabilities(student_logits_TV), log_probabilities(teacher_logits_TV))
        self._check(value_T, student_logits_TV)
        return value_T

    def _check(self, value_T: Tensor, student_TV: Tensor) -> None:
        if value_T.shape != student_TV.shape[:1]:
            raise ConfigError(
                f"Expected {name_of(self)} to return one value for each of {len(student_TV)} tokens, but got a tensor "
                f"of shape {list(value_T.shape)}: sum over the vocabulary, the last dimension, and over nothing else."
            )


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """KL(S||T) = sum_v S_v (log S_v - log T_v), mode seeking (CaOPD, arXiv 2604.16830, eq. 7).

    Its gradient with respect to the student's logits is S (log S - log T - KL(S||T)).
    """

    def values(self, student_TV: Tensor, teacher_TV: Tensor) -> Tensor:
        """Return KL(S||T); arguments as in :meth:`Divergence.values`."""
        return expectation(student_TV.exp(), student_TV - teacher_TV)

    def values_and_gradients(self, student_TV: Tensor, teacher_TV: Tensor) -> tuple[Tensor, Tensor]:
        """Return KL(S||T) and its gradient; arguments as in :meth:`Divergence.values`."""
        return _kl_and_gradient(student_TV.exp(), student_TV - teacher_TV)


@dataclass(frozen=True)
class ForwardKL(Divergence):
    """KL(T||S) = sum_v T_v (log T_v - log S_v), mode covering.

    Its gradient with respect to the student's logits is S - T.
    """

    def values(self, student_TV: Tensor, teacher_TV: Tensor) -> Tensor:
        """Return KL(T||S); arguments as in :meth:`Divergence.values`."""
        return expectation(teacher_TV.exp(), teacher_TV - student_TV)

    def values_and_gradients(self, student_TV: Tensor, teacher_TV: Tensor) -> tuple[Tensor, Tensor]:
        """Return KL(T||S) and its gradient; arguments as in :meth:`Divergence.values`."""
        probability_TV, teacher_probability_TV = student_TV.exp(), teacher_TV.exp()
        value_T = expectation(teacher_probability_TV, teacher_TV - student_TV)
        return value_T, probability_TV.sub_(teacher_probability_TV)


@dataclass(frozen=True)
class JSD(Divergence):
    """The Jensen-Shannon divergence w KL(T||M) + (1-w) KL(S||M) with M = w T + (1-w) S, always finite.

    It is bounded by -w log w - (1-w) log(1-w). Its gradient with respect to the student's logits is
    (1-w) S (log S - log M - KL(S||M)).

    Args:
        teacher_weight: The teacher's weight w in the mixture, strictly between 0 and 1.

    Raises:
        ConfigError: A weight outside (0, 1).
    """

    teacher_weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.teacher_weight < 1.0:
            raise ConfigError(
                "Expected `teacher_weight` of JSD to be strictly between 0 and 1, but got "
                f"{self.teacher_weight!r}. For the limits use ReverseKL or ForwardKL."
            )

    def values(self, student_TV: Tensor, teacher_TV: Tensor) -> Tensor:
        """Return the divergence; arguments as in :meth:`Divergence.values`."""
        mixture_TV = self._log_mixture(student_TV, teacher_TV)
        teacher_value_T = expectation(teacher_TV.exp(), teacher_TV - mixture_TV)
        return self._weighed(teacher_value_T, expectation(student_TV.exp(), student_TV - mixture_TV))

    def values_and_gradients(self, student_TV: Tensor, teacher_TV: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence and its gradient; arguments as in :meth:`Divergence.values`."""
        probability_TV = student_TV.exp()
        mixture_TV = self._log_mixture(student_TV, teacher_TV)
        teacher_value_T = expectation(teacher_TV.exp(), teacher_TV - mixture_TV)
        student_value_T, gradient_TV = _kl_and_gradient(probability_TV, student_TV - mixture_TV)
        return self._weighed(teacher_value_T, student_value_T), gradient_TV.mul_(1.0 - self.teacher_weight)

    def _weighed(self, teacher_value_T: Tensor, student_value_T: Tensor) -> Tensor:
        return self.teacher_weight * teacher_value_T + (1.0 - self.teacher_weight) * student_value_T

    def _log_mixture(self, student_TV: Tensor, teacher_TV: Tensor) -> Tensor:
        """Return log M.

        Log-probabilities of ``-inf`` are first raised to a finite floor far below any other: the derivative of
        log(e^x + e^y) at x = y = -inf would be 0/0.
        """
        floor = floor_of(student_TV)
        return torch.logaddexp(
            teacher_TV.clamp(min=floor) + math.log(self.teacher_weight),
            student_TV.clamp(min=floor) + math.log1p(-self.teacher_weight),
        )


def _kl_and_gradient(probability_TV: Tensor, log_ratio_TV: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL = sum_v p_v r_v and p (r - KL), overwriting the log-ratios r."""
    log_ratio_TV.masked_fill_(probability_TV == 0, 0.0)
    value_T = (probability_TV * log_ratio_TV).sum(-1)
    return value_T, log_ratio_TV.sub_(value_T.unsqueeze(-1)).mul_(probability_TV)
