"""pass@k: how likely at least one of k completions is right, estimated from n of them."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from caopd.errors import ConfigError, DataError


def pass_at_k(num_correct: Tensor, num_samples: int, k: int) -> Tensor:
    r"""Unbiased estimate, per prompt, that at least one of k completions is correct.

    .. math::
        \text{pass@}k = 1 - \binom{n - c}{k} \Big/ \binom{n}{k}

    with :math:`n` the completions of a prompt and :math:`c` the correct ones among them: the share of all sets of k of
    them that hold a correct one. The binomials are exact integers, so large n loses no digit.

    Args:
        num_correct: c, the number of correct completions of each prompt, integer tensor ``[P]`` with values 0 to
            ``num_samples``.
        num_samples: n, the number of completions of each prompt.
        k: Number of completions of which one shall be right, from 1 to n.

    Returns:
        float64 tensor ``[P]`` in [0, 1]; their mean is the pass@k of the set.

    Raises:
        ConfigError: ``k`` is not between 1 and ``num_samples``.
        DataError: ``num_correct`` is no integer vector, or out of range.

    Source:
        Chen et al. 2021 (arXiv 2107.03374), equation 1.

    Example:
        Of the six pairs of four completions, one of them correct, three hold it.

        >>> pass_at_k(torch.tensor([0, 1, 4]), num_samples=4, k=2)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    check_k(k, num_samples)
    check_num_correct(num_correct, num_samples)
    return _of_every_count(num_samples, k).to(num_correct.device)[num_correct]


def check_k(k: int, num_samples: int) -> None:
    """Raise ``ConfigError`` unless 1 <= k <= n."""
    if not 1 <= k <= num_samples:
        raise ConfigError(
            f"Expected `k` of pass@k to be between 1 and the number of completions per prompt, {num_samples}, but got "
            f"{k}: sample more completions or lower k."
        )


def check_num_correct(num_correct: Tensor, num_samples: int) -> None:
    """Raise ``DataError`` unless ``num_correct`` is a vector of integers from 0 to n."""
    if num_correct.ndim != 1 or num_correct.is_floating_point() or num_correct.dtype == torch.bool:
        raise DataError(
            "Expected argument `num_correct` to be an integer tensor of shape [P], but got "
            f"{num_correct.dtype} of shape {tuple(num_correct.shape)}."
        )
    if bool(((num_correct < 0) | (num_correct > num_samples)).any()):
        raise DataError(
            f"Expected argument `num_correct` to lie between 0 and {num_samples}, but got values from "
            f"{int(num_correct.min())} to {int(num_correct.max())}."
        )


def mean_pass_at_k(prompts: Tensor, k: int) -> Tensor:
    """Mean of :func:`pass_at_k` over prompts, from how many of them have c correct completions.

    Args:
        prompts: Number of prompts with c correct completions, for c = 0 to n, integer tensor ``[n + 1]``.
        k: Number of completions of which one shall be right, from 1 to n (not checked).

    Returns:
        float64 scalar; NaN without prompts.

    Example:
        >>> mean_pass_at_k(torch.tensor([1, 1, 0, 0, 2]), k=2)
        tensor(0.6250, dtype=torch.float64)
    """
    values = _of_every_count(len(prompts) - 1, k).to(prompts.device)
    return (values * prompts).sum() / prompts.sum()


def _of_every_count(num_samples: int, k: int) -> Tensor:
    """pass@k for c = 0 to n, float64 ``[n + 1]``; a quotient of integers is rounded once."""
    n = num_samples
    return torch.tensor([(comb(n, k) - comb(n - c, k)) / comb(n, k) for c in range(n + 1)], dtype=torch.float64)
