"""Distributions of confidences and correctness whose 10-bin ECE is known exactly.

A completion that states q is right with probability q minus the gap of its bin. Completions of one prompt share a
part of what makes them confident, and a part of what makes them right (a Gaussian copula each).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Floats = npt.NDArray[np.float64]
N_BINS = 10
CENTRES = (np.arange(N_BINS) + 0.5) / N_BINS
SHARED_CONFIDENCE, SHARED_CORRECTNESS = 0.7, 0.5
"""Shares of the variance that completions of a prompt have in common."""


@dataclass(frozen=True)
class Distribution:
    """A distribution.

    Attributes:
        says: What it is, for the page.
        confidence: Confidence of each quantile in (0, 1); values are on a grid of 0.01.
        shape: Gap of each bin, up to a common factor; positive is overconfident.
    """

    says: str
    confidence: Callable[[Floats], Floats]
    shape: Floats

    def share(self) -> Floats:
        """Return the share of completions in each bin, exact to 1e-6."""
        quantiles = (np.arange(10**6) + 0.5) / 10**6
        return np.bincount(bins(self.confidence(quantiles)), minlength=N_BINS) / 10**6

    def gaps(self, error: float) -> Floats:
        """Return the gap of each bin for a true ECE."""
        return error * self.shape / (self.share() * np.abs(self.shape)).sum()

    def sample(self, gaps: Floats, num_prompts: int, per_prompt: int, rng: np.random.Generator) -> tuple:
        """Return confidences and correctness, ``[num_prompts, per_prompt]`` each."""
        size = (num_prompts, per_prompt)
        confidence = self.confidence(norm.cdf(_shared(size, SHARED_CONFIDENCE, rng)))
        chance = confidence - gaps[bins(confidence)]
        if chance.min() < -1e-9 or chance.max() > 1 + 1e-9:
            raise ValueError(f"{self.says}: chances from {chance.min():.3f} to {chance.max():.3f}")
        return confidence, norm.cdf(_shared(size, SHARED_CORRECTNESS, rng)) < chance


def bins(confidence: Floats) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence, by whole hundredths."""
    return np.minimum(np.rint(confidence * 100).astype(np.int64) // 10, N_BINS - 1)


def _shared(size: tuple[int, int], share: float, rng: np.random.Generator) -> Floats:
    common, own = rng.normal(size=(size[0], 1)), rng.normal(size=size)
    return np.sqrt(share) * common + np.sqrt(1 - share) * own


def _steps(values: tuple[float, ...], edges: tuple[float, ...]) -> Callable[[Floats], Floats]:
    return lambda quantile: np.array(values)[np.searchsorted(edges, quantile)]


DISTRIBUTIONS = {
    "spread": Distribution(
        "0.00 to 1.00 in steps of 0.01, all alike; too extreme: over 1/2 too high, below too low",
        lambda quantile: quantile.round(2),
        np.where(CENTRES > 0.5, 1.0, -1.0),
    ),
    "concentrated": Distribution(
        "the same confidences; all of the error in two of the ten bins",
        lambda quantile: quantile.round(2),
        np.isin(np.arange(N_BINS), (6, 7)).astype(np.float64),
    ),
    "decimals": Distribution(
        "0.0 to 1.0 in steps of 0.1, mostly high; overconfident from 0.3",
        lambda quantile: (1 - quantile**2).round(1),
        np.where(CENTRES > 0.3, 1.0, 0.0),
    ),
    "few": Distribution(
        "0.3, 0.6 and 0.9; the first too low, the others too high",
        _steps((0.3, 0.6, 0.9), (0.3, 0.6)),
        np.where(CENTRES > 0.5, 1.0, -0.5),
    ),
    "saturated": Distribution(
        "1.0 in 70 % of the cases, else 0.95, 0.9 or 0.7; overconfident",
        _steps((0.7, 0.9, 0.95, 1.0), (0.05, 0.15, 0.3)),
        np.ones(N_BINS),
    ),
}
