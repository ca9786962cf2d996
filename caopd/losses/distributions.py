"""Log-probabilities over a vocabulary, and functions of them.

Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_probabilities(logits_TV: Tensor) -> Tensor:
    """Return log softmax over the vocabulary, at least in float32."""
    return torch.log_softmax(logits_TV, dim=-1, dtype=torch.promote_types(logits_TV.dtype, torch.float32))


def log_probability_of(logprob_TV: Tensor, target_T: Tensor) -> Tensor:
    """Return every row's log-probability of its target.

    Example:
        >>> log_probability_of(torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]), torch.tensor([1, 0]))
        tensor([-2., -3.])
    """
    return logprob_TV.gather(-1, target_T.unsqueeze(-1)).squeeze(-1)


def expectation(probability_TV: Tensor, value_TV: Tensor) -> Tensor:
    """Return sum_v p_v x_v, where p_v = 0 adds nothing, whatever x_v is (0 log 0 = 0).

    Example:
        >>> expectation(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, -torch.inf]]))
        tensor([2.])
    """
    return (probability_TV * value_TV.masked_fill(probability_TV == 0, 0.0)).sum(-1)


def entropy(logprob_TV: Tensor) -> Tensor:
    """Return every row's entropy, nats.

    Example:
        >>> entropy(torch.tensor([[0.5, 0.5, 0.0]]).log())
        tensor([0.6931])
    """
    return -expectation(logprob_TV.exp(), logprob_TV)


def floor_of(x: Tensor) -> float:
    """Return a finite number far below any log-probability; at ``-inf`` some derivatives would be 0/0."""
    return torch.finfo(x.dtype).min / 4
