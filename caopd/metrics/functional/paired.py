"""The difference of two expected calibration errors that were measured on the same prompts.

Shapes: N completions, M bins, R draws of chance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from caopd.metrics.functional.certainty import DRAWS, debiased_error, interval
from caopd.metrics.functional.gaps import bin_gaps, draws_of, noise, standard_errors
from caopd.metrics.functional.validation import check_n_bins, check_pair, check_prompts


class Completions(NamedTuple):
    """One set of completions that state a confidence.

    Attributes:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.
        prompt: Which prompt each completion answers, int64 ``[N]``; a prompt has the same number in both sets.
    """

    confidence: Tensor
    correct: Tensor
    prompt: Tensor


class Difference(NamedTuple):
    """Second value minus first.

    Attributes:
        value: The difference of the values themselves.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def calibration_difference(
    first: Completions, second: Completions, *, n_bins: int = 10, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Return the difference of the expected calibration errors of two sets, with a paired interval.

    Chance adds the more to an error the more bins it is spread over and the smaller the error is, so that of two
    equally calibrated sets one may show the larger error again and again. The interval is therefore made of the
    intervals of the two errors, each with its debiased estimate, and of how far chance moves both errors together:
    the distances to the ends are added as standard errors are. Completions of a prompt, in either set, depend on
    each other as they do here.

    Args:
        first: One set, of at least one completion.
        second: The other, likewise; it need not have as many completions.
        n_bins: M, the number of bins; with 1 it is the absolute value of the overconfidence gap that is compared.
        draws: R, an even number.
        seed: Of the draws.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: wrong shapes or values.

    Source:
        Zou and Donner 2008, "Construction of confidence limits about effect measures", equation for a difference.
        ``benchmarks/results/intervals.md`` has how often it finds a difference where there is none.

    Example:
        >>> prompt, correct = torch.arange(200), torch.arange(200) % 2
        >>> sure, unsure = (Completions(torch.full((200,), q), correct, prompt) for q in (1.0, 0.5))
        >>> found = calibration_difference(sure, unsure)
        >>> found.value, found.high < 0
        (-0.5, True)
    """
    check_n_bins(n_bins)
    pairs = [check_pair(each.confidence, each.correct) for each in (first, second)]
    lengths = [len(confidence) for confidence, _ in pairs]
    together = torch.cat([each.confidence for each in (first, second)])
    prompts = torch.split(check_prompts(torch.cat([first.prompt, second.prompt]), together), lengths)
    sets = [(bin_gaps(*pair, n_bins), prompt_N) for pair, prompt_N in zip(pairs, prompts, strict=True)]
    noise_KR = draws_of(noise(sets), draws, seed)
    found, drawn = [], []
    for (gaps, prompt_N), own in zip(sets, (slice(n_bins), slice(n_bins, None)), strict=True):
        covariance = noise([(gaps, prompt_N)])
        steps_M, noise_MR = standard_errors(gaps, covariance), noise_KR[own]
        calibrated_R = gaps.drawn(torch.zeros_like(gaps.gap_M), noise_MR)
        low, high = interval(gaps, steps_M, noise_MR, calibrated_R)
        error = min(max(float(debiased_error(gaps, covariance)), low), high)
        found.append((error, low, high))
        drawn.append(gaps.drawn(gaps.moved_to(torch.tensor(error, dtype=torch.float64), steps_M), noise_MR))
    correlation = float(torch.corrcoef(torch.stack(drawn)).nan_to_num()[0, 1])
    (error_1, low_1, high_1), (error_2, low_2, high_2) = found
    down = _reach(error_2 - low_2, high_1 - error_1, correlation)
    up = _reach(high_2 - error_2, error_1 - low_1, correlation)
    observed = float(sets[1][0].error - sets[0][0].error)
    return Difference(observed, error_2 - error_1 - down, error_2 - error_1 + up)


def _reach(one: float, other: float, correlation: float) -> float:
    """Return how far the difference reaches where each of two values reaches so far."""
    return math.sqrt(max(0.0, one * one + other * other - 2 * correlation * one * other))
