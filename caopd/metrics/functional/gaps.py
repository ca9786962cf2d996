"""The signed gaps behind the expected calibration error, and how chance moves them.

The error is a sum of absolute gaps, one per bin. Chance moves every gap up or down, and completions of one prompt move
theirs together; what follows from that is in :mod:`~caopd.metrics.functional.certainty`.

Shapes: N completions, M bins, R draws of chance; ``...`` runs over supposed gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from caopd.metrics.functional.binning import equal_width_bins

_LEAST_VARIANCE = 0.01
"""Gaps are moved in steps of their standard errors; where 0 or 1 is stated, these would be 0."""


class BinGaps(NamedTuple):
    """What is known of each bin.

    Attributes:
        share_M: Share of the completions in the bin, float64 ``[M]``, as all others.
        confidence_M: Mean stated confidence q; 0 where the bin is empty.
        variance_M: Mean of q (1 - q): variance of the correctness of a calibrated model.
        within_M: Variance of a completion's gap within its bin.
        gap_M: Mean confidence minus accuracy, times the share; the absolute values add up to the ECE.
        residual_N: Gap of each completion minus the mean of its bin, in standard deviations, ``[N]``.
        bin_N: Index of each completion's bin, int64 ``[N]``.
    """

    share_M: Tensor
    confidence_M: Tensor
    variance_M: Tensor
    within_M: Tensor
    gap_M: Tensor
    residual_N: Tensor
    bin_N: Tensor

    @property
    def error(self) -> Tensor:
        """The expected calibration error, as it is observed."""
        return self.gap_M.abs().sum()

    @property
    def largest_error(self) -> float:
        """The error if every gap were as large as it can be."""
        least_M, most_M = self.range_M
        return float(torch.maximum(-least_M, most_M).sum())

    @property
    def range_M(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest gap of each bin: those where all of its completions are right, and none is."""
        return self.share_M * (self.confidence_M - 1), self.share_M * self.confidence_M

    def variance_at(self, gap: Tensor) -> Tensor:
        """Return the variance of a completion's gap in each bin, ``[..., M]``, supposing gaps of ``[..., M]``.

        Accuracies follow from the gaps, and their variances from the accuracies.
        """
        within = _ratio(gap, self.share_M)
        raw = self.variance_M + within * (2 * self.confidence_M - 1) - gap * within
        return raw.clamp(min=0)

    def moved_to(self, error: Tensor, noise_M: Tensor) -> Tensor:
        """Return gaps that are like the observed ones, but whose absolute values add up to another error.

        Every gap is moved away from 0, or towards 0 but not past it, by the same number of its standard errors. Gaps
        that no accuracy between 0 and 1 could have are cut, so that they may add up to less.

        Args:
            error: The errors to reach, float64 ``[...]``.
            noise_M: Standard error of each gap, ``[M]``.

        Returns:
            float64 ``[..., M]``.
        """
        size_M = self.gap_M.abs()
        order = _ratio(size_M, noise_M).argsort(descending=True)
        # The gaps that stay are the first ones in this order; each number has a step, the largest is right.
        steps = (size_M[order].cumsum(0) - error.unsqueeze(-1)) / noise_M[order].cumsum(0)
        moved = (size_M - steps.amax(-1, keepdim=True) * noise_M).clamp(min=0)
        # Where no gap is observed, it may go where there is more room for it.
        is_positive = torch.where(self.gap_M == 0, self.confidence_M >= 0.5, self.gap_M > 0)
        return torch.where(is_positive, moved, -moved).clamp(*self.range_M)

    def drawn(self, gap: Tensor, noise_MR: Tensor) -> Tensor:
        """Return the errors that would be observed, ``[..., R]``, supposing gaps of ``[..., M]``.

        Args:
            gap: The supposed gaps.
            noise_MR: Draws of chance, of :func:`draws_of`, ``[M, R]``.
        """
        least_M, most_M = self.range_M
        deviation = self.variance_at(gap).sqrt()
        drawn = torch.addcmul(gap.unsqueeze(-1), deviation.unsqueeze(-1), noise_MR)
        return drawn.clamp_(least_M.unsqueeze(-1), most_M.unsqueeze(-1)).abs_().sum(-2)


def bin_gaps(confidence: Tensor, correct: Tensor, n_bins: int) -> BinGaps:
    """Put completions into equal-width bins.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1], at least one (not checked).
        correct: Verified correctness, bool ``[N]``.
        n_bins: M, the number of bins.
    """
    bin_N, q = equal_width_bins(confidence, n_bins), confidence.to(torch.float64)
    gap_N = q - correct.to(torch.float64)
    counts_M = torch.bincount(bin_N, minlength=n_bins).to(torch.float64)
    q_M, variance_M, gap_M = (_ratio(torch.bincount(bin_N, each, n_bins), counts_M) for each in (q, q * (1 - q), gap_N))
    share_M = counts_M / len(q)
    within_M = (variance_M + gap_M * (2 * q_M - 1) - gap_M.square()).clamp(min=0)
    residual_N = _ratio(gap_N - gap_M[bin_N], within_M.sqrt()[bin_N])
    return BinGaps(share_M, q_M, variance_M, within_M, share_M * gap_M, residual_N, bin_N)


def noise(sets: Sequence[tuple[BinGaps, Tensor]]) -> Tensor:
    """Return how chance moves the gaps of one or several sets of completions together, in units of their deviations.

    Completions of one prompt, in whichever set, depend on each other as their residuals show; others do not.

    Args:
        sets: Gaps, and index of the prompt of each completion, int64 ``[N]``, common to all sets.

    Returns:
        Covariance of all gaps if the gap of every completion had variance 1, float64 ``[K, K]``, where K is the
        number of bins of all sets.
    """
    num_prompts = max(int(prompt_N.max()) for _, prompt_N in sets) + 1
    columns, own, scale = [], [], []
    for gaps, prompt_N in sets:
        n_bins, num = len(gaps.share_M), len(prompt_N)
        cells = torch.bincount(prompt_N * n_bins + gaps.bin_N, gaps.residual_N, num_prompts * n_bins)
        columns.append(cells.view(num_prompts, n_bins))
        squares_M = torch.bincount(gaps.bin_N, gaps.residual_N.square(), n_bins)
        own.append(gaps.share_M * num - squares_M + _lost(gaps, prompt_N, columns[-1]))
        scale.append(torch.full((n_bins,), 1 / num, dtype=torch.float64))
    sums_PK, scale_K = torch.cat(columns, 1), torch.cat(scale)
    return scale_K[:, None] * (sums_PK.T @ sums_PK + torch.diag(torch.cat(own))) * scale_K


def _lost(gaps: BinGaps, prompt_N: Tensor, sums_PM: Tensor) -> Tensor:
    """Return what is missing from the sums of squares, since residuals are from the mean of the bin itself, ``[M]``.

    Where every completion has a prompt of its own nothing is, since their variances are known.
    """
    n_bins = len(gaps.share_M)
    here_PM = torch.bincount(prompt_N * n_bins + gaps.bin_N, minlength=sums_PM.numel()).view(sums_PM.shape)
    prompts_M = (here_PM > 0).sum(0)
    lost_M = sums_PM.square().sum(0) / (prompts_M - 1).clamp(min=1)
    return torch.where(here_PM.sum(0) > prompts_M, lost_M, torch.zeros_like(lost_M))


def draws_of(covariance: Tensor, draws: int, seed: int) -> Tensor:
    """Return an even number of normal draws of a covariance ``[K, K]``, mirror images included, ``[K, draws]``."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(len(covariance), draws // 2, dtype=torch.float64, generator=generator)
    values, vectors = torch.linalg.eigh(covariance)
    drawn = (vectors * values.clamp(min=0).sqrt()) @ half
    return torch.cat([drawn, -drawn], 1)


def standard_errors(gaps: BinGaps, covariance: Tensor) -> Tensor:
    """Return the standard errors of the gaps of a calibrated model, ``[M]``: steps for :meth:`BinGaps.moved_to`."""
    return (covariance.diagonal() * gaps.variance_M.clamp(min=_LEAST_VARIANCE)).clamp(min=0).sqrt()


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with 0 for anything over 0."""
    return torch.where(denominator > 0, numerator / denominator.clamp(min=1e-300), torch.zeros_like(numerator))
