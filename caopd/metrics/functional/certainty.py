"""How certain an expected calibration error is: what chance alone would show, and an interval of the true one.

The plug-in error is a sum of absolute gaps, so chance can only add to it: a perfectly calibrated model shows more than
0, and a bootstrap, which adds chance a second time, has its interval too high. Here every error t that is possible is
tried: what would be observed if the gaps added up to t? The interval holds those t that go with what was observed.

Shapes: N completions, M bins, R draws of chance, T errors that are tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from caopd.metrics.functional.calibration_error import expected_absolute
from caopd.metrics.functional.gaps import BinGaps, bin_gaps, draws_of, noise, standard_errors
from caopd.metrics.functional.validation import check_n_bins, check_pair, check_prompts

LEVEL = 0.95
"""Level of the intervals."""
_KEPT = 0.94
"""Share of what a true error above 0 would show that goes with it. It is a little below the level, since the gaps
behind such an error are guessed to be rather concentrated; chosen by simulation, see ``benchmarks/intervals.py``."""
DRAWS = 2000
_HALVINGS = 11


@dataclass(frozen=True, slots=True)
class CalibrationCertainty:
    """An expected calibration error with all that says how far it is to be believed.

    Attributes:
        ece: The plug-in error, as everywhere.
        debiased: The error without most of what chance adds, see
            :func:`~caopd.metrics.functional.calibration_error.debiased_calibration_error`.
        low: Lower end of the 95 % interval of the true error; NaN with fewer than two prompts, as ``high``.
        high: Upper end of the interval.
        floor: Noise floor: the mean error that a perfectly calibrated model with these confidences would show.
        floor_low: From here,
        floor_high: up to here reach 95 % of the errors that it would show.
        p_value: How often it would show an error of at least ``ece``. The interval leaves out 0 where that is less
            than 0.05.
        consistency: Of each bin, the accuracies from which to which 95 % of those of a calibrated model would reach,
            as consistency bars of a reliability diagram; NaN where the bin is empty.
    """

    ece: float
    debiased: float
    low: float
    high: float
    floor: float
    floor_low: float
    floor_high: float
    p_value: float
    consistency: tuple[tuple[float, float], ...]


def calibration_certainty(
    confidence: Tensor,
    correct: Tensor,
    prompt: Tensor | None = None,
    *,
    n_bins: int = 10,
    draws: int = DRAWS,
    seed: int = 0,
) -> CalibrationCertainty:
    """Say how certain the expected calibration error of a set of completions is.

    Gaps are taken for jointly normal. Their variances follow from the accuracies that are supposed, so that the
    interval is right for rare errors as well (that of one bin is much like Wilson's); completions of a prompt depend
    on each other as they do here. For an error t, the gaps are the observed ones, each moved by as many of its
    standard errors as it takes to add up to t. Which observed errors go with t is decided in the order of Feldman and
    Cousins, so that no interval is empty, and one that is near 0 has its uncertainty above.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.
        prompt: Which prompt each completion answers, int64 ``[N]``, any numbers; None where each has a prompt of its
            own.
        n_bins: M, the number of bins.
        draws: R, an even number.
        seed: Of the draws: the same completions give the same certainty.

    Returns:
        Python numbers; all NaN without completions.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct`` or ``prompt``.

    Source:
        Noise floor and consistency bars: Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams".
        Order of what goes with a value: Feldman and Cousins 1998 (arXiv physics/9711021). The interval as a whole is
        this project's; ``benchmarks/results/intervals.md`` has how often it holds the truth.

    Example:
        >>> confidence = torch.tensor([0.5, 1.0]).repeat_interleave(100)
        >>> correct = torch.arange(200) % 2 == 0
        >>> found = calibration_certainty(confidence, correct)
        >>> found.ece, found.p_value < 0.05, found.low < 0.25 < found.high
        (0.25, True, True)
    """
    check_n_bins(n_bins)
    confidence, correct = check_pair(confidence, correct)
    prompt_N = check_prompts(prompt, confidence)
    if not len(confidence):
        return CalibrationCertainty(*(math.nan,) * 8, ((math.nan, math.nan),) * n_bins)
    gaps = bin_gaps(confidence, correct, n_bins)
    covariance = noise([(gaps, prompt_N)])
    noise_MR = draws_of(covariance, draws, seed)
    calibrated_R = gaps.drawn(torch.zeros_like(gaps.gap_M), noise_MR)
    low, high = (math.nan, math.nan)
    if int(prompt_N.max()) > 0:
        low, high = interval(gaps, standard_errors(gaps, covariance), noise_MR, calibrated_R)
    floor_low, floor_high = _central(calibrated_R.unsqueeze(-1))[0]
    return CalibrationCertainty(
        ece=float(gaps.error),
        debiased=float(debiased_error(gaps, covariance)),
        low=low,
        high=high,
        floor=float(calibrated_R.mean()),
        floor_low=floor_low,
        floor_high=floor_high,
        p_value=_p_value(gaps, calibrated_R),
        consistency=consistency_bars(gaps.share_M * len(confidence), gaps.confidence_M, covariance.diagonal(), seed),
    )


def consistency_bars(
    counts_M: Tensor, confidence_M: Tensor, noise_M: Tensor | None = None, seed: int = 0
) -> tuple[tuple[float, float], ...]:
    """Return from where to where 95 % of the accuracies of a calibrated model would reach, for each bin.

    Args:
        counts_M: Number of completions, float64 ``[M]``.
        confidence_M: Mean stated confidence; anything where the bin is empty.
        noise_M: Diagonal of :func:`~caopd.metrics.functional.gaps.noise`; None where each completion has a prompt of
            its own. Where completions of a prompt depend on each other, they count as fewer.
        seed: Of the draws.

    Returns:
        Low and high accuracy of each bin; NaN where it is empty.

    Source:
        Bröcker and Smith 2007.
    """
    generator = torch.Generator().manual_seed(seed)
    independent_M = counts_M
    if noise_M is not None:
        independent_M = (counts_M / counts_M.sum()).square() / noise_M.clamp(min=1e-300)
    whole_M = torch.minimum(independent_M.nan_to_num().round().clamp(min=1), counts_M.clamp(min=1))
    chances_M = torch.where(counts_M > 0, confidence_M, torch.zeros_like(confidence_M)).clamp(0, 1)
    drawn_RM = torch.binomial(whole_M.expand(DRAWS, -1), chances_M.expand(DRAWS, -1), generator=generator) / whole_M
    bars = _central(drawn_RM)
    return tuple(bar if count else (math.nan, math.nan) for bar, count in zip(bars, counts_M.tolist(), strict=True))


def debiased_error(gaps: BinGaps, covariance: Tensor) -> Tensor:
    """Return the debiased error of gaps that move as ``covariance`` says, see :func:`calibration_certainty`."""
    deviation_M = (covariance.diagonal() * gaps.within_M).clamp(min=0).sqrt()
    return (2 * gaps.error - expected_absolute(gaps.gap_M, deviation_M).sum()).clamp(min=0)


def interval(gaps: BinGaps, noise_M: Tensor, noise_MR: Tensor, calibrated_R: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest error that go with the observed one, see :func:`calibration_certainty`.

    Args:
        gaps: The observed gaps.
        noise_M: Their standard errors.
        noise_MR: Draws of chance.
        calibrated_R: Errors that a calibrated model would show with these draws.
    """
    floor = calibrated_R.mean()

    def goes(errors_T: Tensor) -> Tensor:
        drawn_TR = gaps.drawn(gaps.moved_to(errors_T, noise_M), noise_MR)
        mean_T1 = drawn_TR.mean(-1, keepdim=True)
        limit_T = _surprise(drawn_TR, mean_T1, floor).kthvalue(math.ceil(_KEPT * noise_MR.shape[1]), -1).values
        return _surprise(gaps.error, mean_T1.squeeze(-1), floor) <= limit_T + 1e-15

    # Chance adds to every error, so the one that the observed one is the mean of lies below it, or is 0.
    centre, above = 0.0, float(gaps.error)
    for _ in range(_HALVINGS):
        middle = (centre + above) / 2
        mean = gaps.drawn(gaps.moved_to(torch.tensor(middle, dtype=torch.float64), noise_M), noise_MR).mean()
        centre, above = (middle, above) if mean < gaps.error else (centre, middle)
    inside, outside = [centre, centre], [0.0, gaps.largest_error]
    for _ in range(_HALVINGS):
        middles = [(a + b) / 2 for a, b in zip(inside, outside, strict=True)]
        for end, is_inside in enumerate(goes(torch.tensor(middles, dtype=torch.float64)).tolist()):
            (inside if is_inside else outside)[end] = middles[end]
    return (0.0 if _p_value(gaps, calibrated_R) >= 1 - LEVEL else inside[0]), inside[1]


def _p_value(gaps: BinGaps, calibrated_R: Tensor) -> float:
    return (1 + int((calibrated_R >= gaps.error - 1e-12).sum())) / (1 + len(calibrated_R))


def _surprise(observed: Tensor, mean: Tensor, floor: Tensor) -> Tensor:
    """How much worse an error goes with a true one than with the true one that it goes with best.

    It goes best with the one whose mean it is; below the mean of a calibrated model there is none.
    """
    return (observed - mean).square() - (observed - floor).clamp(max=0).square()


def _central(drawn_RM: Tensor) -> list[tuple[float, float]]:
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low_M, high_M = drawn_RM.quantile(tails, dim=0)
    return list(zip(low_M.tolist(), high_M.tolist(), strict=True))
