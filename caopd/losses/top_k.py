"""A divergence over the student's most likely tokens and one bucket for the rest.

Shape suffixes: T tokens, V vocabulary, k the tokens that are told apart, k1 these tokens and the bucket.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.distributions import floor_of
from caopd.losses.divergences import Divergence, ReverseKL


@dataclass(frozen=True)
class TopK(Divergence):
    """Any divergence over k + 1 events: each of the student's k most likely tokens, and any other token.

    This is the divergence of SDPO (arXiv 2601.20802), which has k = 100. It is blind to how the other tokens share
    what is left; a Kullback-Leibler or Jensen-Shannon divergence is never more than over the full vocabulary. It
    changes what is learnt and saves no memory, since the logits of a chunk exist anyway.

    Its gradient is that with respect to the logits of the events. The logit of the rest is log sum exp of its tokens'
    logits: each of them has its share S_v / S_rest of the rest's gradient.

    Args:
        divergence: The divergence that is computed over the events.
        k: Number of tokens that are told apart, 1 or larger.

    Raises:
        ConfigError: A k below 1.
    """

    divergence: Divergence = field(default_factory=ReverseKL)
    k: int = 100

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"Expected `k` of TopK to be 1 or larger, but got {self.k}.")

    def values(self, student_TV: Tensor, teacher_TV: Tensor) -> Tensor:
        """Return the divergence of the events; arguments as in :meth:`Divergence.values`."""
        student_Tk1, teacher_Tk1, _ = top_k_and_rest(student_TV, teacher_TV, self.k)
        return self.divergence.values(student_Tk1, teacher_Tk1)

    def values_and_gradients(self, student_TV: Tensor, teacher_TV: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence of the events and its gradient; arguments as in :meth:`Divergence.values`."""
        student_Tk1, teacher_Tk1, top_Tk = top_k_and_rest(student_TV, teacher_TV, self.k)
        value_T, gradient_Tk1 = self.divergence.values_and_gradients(student_Tk1, teacher_Tk1)
        gradient_TV = _without(student_TV, top_Tk).softmax(-1).mul_(gradient_Tk1[:, -1:])
        return value_T, gradient_TV.scatter_(-1, top_Tk, gradient_Tk1[:, :-1])


def top_k_and_rest(student_TV: Tensor, teacher_TV: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both distributions over the student's k most likely tokens and a bucket for the rest, and those tokens.

    Args:
        student_TV: Log-probabilities of the student.
        teacher_TV: Log-probabilities of the teacher.
        k: Number of tokens; where the vocabulary is smaller, all of it, with an empty bucket.

    Returns:
        Log-probabilities [T, k + 1] of student and teacher, the bucket last, and token ids [T, k].

    Example:
        >>> student, teacher = torch.tensor([[0.2, 0.5, 0.3]]).log(), torch.tensor([[0.1, 0.3, 0.6]]).log()
        >>> student, teacher, tokens = top_k_and_rest(student, teacher, 1)
        >>> student.exp(), teacher.exp(), tokens
        (tensor([[0.5000, 0.5000]]), tensor([[0.3000, 0.7000]]), tensor([[1]]))
    """
    top_Tk = student_TV.topk(min(k, student_TV.shape[-1]), dim=-1).indices

    def merged(logprob_TV: Tensor) -> Tensor:
        rest_T1 = _without(logprob_TV, top_Tk).logsumexp(-1, keepdim=True)
        rest_T1 = rest_T1.masked_fill(rest_T1 < floor_of(rest_T1) / 2, -torch.inf)
        return torch.cat([logprob_TV.gather(-1, top_Tk), rest_T1], dim=-1)

    return merged(student_TV), merged(teacher_TV), top_Tk


def _without(logprob_TV: Tensor, tokens_Tk: Tensor) -> Tensor:
    """Return the log-probabilities with those of the given tokens, and all that are ``-inf``, at the floor."""
    floor = floor_of(logprob_TV)
    return logprob_TV.clamp(min=floor).scatter(-1, tokens_Tk, floor)
