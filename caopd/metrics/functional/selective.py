"""Answering only where confident: risk-coverage curve, its area, and accuracy at a coverage.

Completions are taken in order of falling confidence. Within a tie the order is arbitrary, so each quantity is
its expectation over all orders of the tied completions: deterministic, and independent of the order of the
input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.metrics.functional.counts import ValueCounts, value_counts
from caopd.metrics.functional.validation import check_pair


class RiskCoverageCurve(NamedTuple):
    """Error rate among the k most confident completions, for k from 1 to N.

    Attributes:
        coverage: k / N, float64 ``[N]``.
        risk: Expected error rate among the first k, float64 ``[N]``.
    """

    coverage: Tensor
    risk: Tensor


def risk_coverage_curve(confidence: Tensor, correct: Tensor) -> RiskCoverageCurve:
    r"""Risk among the most confident completions, for every coverage.

    .. math::
        \text{risk}(k) = \frac{1}{k} \Big( E_{>v} + (k - n_{>v}) \frac{E_v}{n_v} \Big)

    with :math:`v` the confidence of the k-th completion, :math:`n_{>v}` completions and :math:`E_{>v}` errors
    above it, and :math:`n_v` completions and :math:`E_v` errors that state :math:`v` itself.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        Coverage and risk, float64 ``[N]`` each; empty without completions.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017 (arXiv 1705.08500).

    Example:
        >>> curve = risk_coverage_curve(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        >>> curve.risk
        tensor([0.0000, 0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    confidence, correct = check_pair(confidence, correct)
    _, value, counts_V = torch.unique(-confidence, return_inverse=True, return_counts=True)
    errors_V = torch.zeros_like(counts_V).index_add(0, value, (~correct).to(torch.int64))
    rank_N = torch.arange(1, confidence.numel() + 1, device=confidence.device)
    # The value of the k-th completion in order of falling confidence.
    value_N = value.sort().values
    above_N = (counts_V.cumsum(0) - counts_V)[value_N]
    errors_above_N = (errors_V.cumsum(0) - errors_V)[value_N]
    error_rate_N = (errors_V.to(torch.float64) / counts_V)[value_N]
    risk_N = (errors_above_N + (rank_N - above_N) * error_rate_N) / rank_N
    return RiskCoverageCurve(coverage=rank_N.to(torch.float64) / confidence.numel(), risk=risk_N)


def area_under_risk_coverage(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Area under the risk-coverage curve (AURC), lower is better.

    .. math::
        \text{AURC} = \frac{1}{N} \sum_{k=1}^{N} \text{risk}(k)

    with :math:`\text{risk}(k)` of :func:`risk_coverage_curve`.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        Geifman et al. 2018 (arXiv 1805.08206).

    Example:
        The risks are 0, 1/2, 1/2 and 1/2.

        >>> area_under_risk_coverage(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        tensor(0.3750, dtype=torch.float64)
    """
    return aurc_of_counts(value_counts(*check_pair(confidence, correct)))


def selective_accuracy(confidence: Tensor, correct: Tensor, coverage: float) -> Tensor:
    r"""Accuracy among the most confident share of the completions.

    .. math::
        1 - \text{risk}(\lceil c N \rceil)

    with the coverage :math:`c`, read as the decimal that it prints, and the risk of
    :func:`risk_coverage_curve`.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.
        coverage: Share of completions to answer, in (0, 1].

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        ConfigError: ``coverage`` is outside (0, 1].
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Example:
        >>> confidence, correct = torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0])
        >>> selective_accuracy(confidence, correct, coverage=0.25)
        tensor(1., dtype=torch.float64)
        >>> selective_accuracy(confidence, correct, coverage=1.0)
        tensor(0.5000, dtype=torch.float64)
    """
    if not 0 < coverage <= 1:
        raise ConfigError(f"Expected argument `coverage` to lie in (0, 1], but got {coverage!r}.")
    return selective_accuracy_of_counts(value_counts(*check_pair(confidence, correct)), coverage)


def aurc_of_counts(counts: ValueCounts) -> Tensor:
    r""":func:`area_under_risk_coverage` of counts; float64 ``[...]``, NaN without completions.

    The risks of one value's completions, with the symbols of :func:`risk_coverage_curve`, add up to

    .. math::
        \sum_{k = n_{>v} + 1}^{n_{>v} + n_v} \text{risk}(k)
        = E_v + \Big( E_{>v} - n_{>v} \frac{E_v}{n_v} \Big) \big( H_{n_{>v} + n_v} - H_{n_{>v}} \big)

    with the harmonic numbers :math:`H`.

    Example:
        >>> stated = torch.tensor([0.5, 1.0, 0.5, 0.75])
        >>> aurc_of_counts(value_counts(stated, torch.tensor([True, True, False, False])))
        tensor(0.3750, dtype=torch.float64)
    """
    errors = counts.counts - counts.correct
    above = _above(counts.counts)
    harmonic = torch.digamma(above + counts.counts + 1) - torch.digamma(above + 1)
    risks = errors + (_above(errors) - above * errors / counts.counts.clamp(min=1)) * harmonic
    return risks.sum(-1) / counts.total


def selective_accuracy_of_counts(counts: ValueCounts, coverage: float) -> Tensor:
    """:func:`selective_accuracy` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> counts = value_counts(torch.tensor([0.5, 1.0]), torch.tensor([False, True]))
        >>> selective_accuracy_of_counts(counts, coverage=0.5)
        tensor(1., dtype=torch.float64)
    """
    # 0.07 * 100 is 7.000000000000001 in floats; seven completions are meant, not eight.
    answered = torch.ceil(coverage * counts.total - 1e-9)
    free_V = (answered.unsqueeze(-1) - _above(counts.counts)).clamp(min=0)
    return (torch.minimum(free_V, counts.counts) * counts.accuracy).sum(-1) / answered


def _above(counts: Tensor) -> Tensor:
    """Of each value, the sum over all larger values."""
    return counts.flip(-1).cumsum(-1).flip(-1) - counts
