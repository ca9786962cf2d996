"""Checks of the arguments of every metric; the code after them relies on shapes, ranges and types."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from caopd.errors import ConfigError, DataError

FLOAT_WIDTHS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
"""The float types that confidences may have, from the narrowest to the widest."""


def check_n_bins(n_bins: int) -> int:
    """Return ``n_bins`` if it is an integer larger than 0.

    Raises:
        ConfigError: ``n_bins`` is not an integer, or smaller than 1.

    Example:
        >>> check_n_bins(10)
        10
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, int) or n_bins < 1:
        raise ConfigError(f"Expected argument `n_bins` to be an integer larger than 0, but got {n_bins!r}.")
    return n_bins


def check_confidence(confidence: Tensor, *, allow_missing: bool = False) -> Tensor:
    """Return ``confidence`` without its graph if it is a float vector with values in [0, 1].

    Args:
        confidence: Stated confidences, ``[N]``, float64, float32, bfloat16 or float16.
        allow_missing: Take NaN as "no confidence was stated" instead of raising.

    Returns:
        The same values, detached.

    Raises:
        DataError: wrong type, shape or width; NaN without ``allow_missing``; a value outside [0, 1].

    Example:
        >>> check_confidence(torch.tensor([0.25, 1.0]))
        tensor([0.2500, 1.0000])
    """
    _check_vector("confidence", confidence)
    if confidence.dtype not in FLOAT_WIDTHS:
        raise DataError(
            "Expected argument `confidence` to be a float64, float32, bfloat16 or float16 tensor, "
            f"but got {confidence.dtype}."
        )
    confidence = confidence.detach()
    missing = confidence.isnan()
    outside = ~missing & ~((confidence >= 0) & (confidence <= 1))
    if bool(outside.any()):
        first = int(outside.int().argmax())
        raise DataError(
            f"Expected argument `confidence` to lie in [0, 1], but got {int(outside.sum())} of "
            f"{confidence.numel()} values outside, the first at index {first} ({float(confidence[first])}). "
            "Confidences are probabilities: divide percentages by 100 and pass no logits."
        )
    if not allow_missing and bool(missing.any()):
        raise DataError(
            f"Expected argument `confidence` to hold no NaN, but got {int(missing.sum())} NaN of "
            f"{confidence.numel()} values, the first at index {int(missing.int().argmax())}. "
            "A missing confidence is not a number: keep the others with `~confidence.isnan()` and report the "
            "format adherence beside the metric, as `CalibrationMetrics` does."
        )
    return confidence


def check_binary(name: str, values: Tensor) -> Tensor:
    """Return a vector of {0, 1} as bool.

    Args:
        name: The argument's name, for the message.
        values: Bool, integer or float tensor ``[N]`` with values 0 and 1.

    Returns:
        Bool tensor ``[N]``.

    Raises:
        DataError: wrong type or shape, or another value than 0 and 1.

    Example:
        >>> check_binary("correct", torch.tensor([0, 1]))
        tensor([False,  True])
    """
    _check_vector(name, values)
    if values.dtype == torch.bool:
        return values
    values = values.detach()
    bad = ~((values == 0) | (values == 1))
    if bool(bad.any()):
        first = int(bad.int().argmax())
        raise DataError(
            f"Expected argument `{name}` to hold only 0 and 1, but got {int(bad.sum())} of {values.numel()} "
            f"other values, the first at index {first} ({values[first].item()}). "
            "Threshold graded rewards before scoring calibration."
        )
    return values.bool()


def check_same_length(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Check that two vectors speak of the same completions.

    Raises:
        DataError: the lengths differ.

    Example:
        >>> check_same_length("confidence", torch.zeros(2), "correct", torch.zeros(2))
    """
    if first.shape != second.shape:
        raise DataError(
            f"Expected arguments `{first_name}` and `{second_name}` to have the same shape [N], "
            f"but got {tuple(first.shape)} and {tuple(second.shape)}."
        )


def check_pair(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Check the two arguments that most metrics take.

    Args:
        confidence: Float tensor ``[N]`` in [0, 1] without NaN.
        correct: Tensor ``[N]`` of {0, 1}.

    Returns:
        ``confidence`` detached, ``correct`` as bool.

    Raises:
        DataError: see :func:`check_confidence`, :func:`check_binary` and :func:`check_same_length`.

    Example:
        >>> check_pair(torch.tensor([0.25, 1.0]), torch.tensor([0, 1]))
        (tensor([0.2500, 1.0000]), tensor([False,  True]))
    """
    confidence = check_confidence(confidence)
    correct = check_binary("correct", correct)
    check_same_length("confidence", confidence, "correct", correct)
    return confidence, correct


def check_prompts(prompt: Tensor | None, confidence: Tensor) -> Tensor:
    """Number the prompts from 0.

    Args:
        prompt: Which prompt each completion answers, integer tensor ``[N]``; None gives each one of its own.
        confidence: ``[N]``.

    Returns:
        int64 ``[N]``, every number from 0 to the largest.

    Raises:
        DataError: wrong type or shape.

    Example:
        >>> check_prompts(torch.tensor([7, 3, 7]), torch.zeros(3))
        tensor([1, 0, 1])
    """
    if prompt is None:
        return torch.arange(len(confidence))
    _check_vector("prompt", prompt)
    if prompt.dtype.is_floating_point or prompt.dtype.is_complex:
        raise DataError(f"Expected argument `prompt` to be an integer tensor, but got {prompt.dtype}.")
    check_same_length("confidence", confidence, "prompt", prompt)
    _, numbers = torch.unique(prompt, return_inverse=True)
    return cast("Tensor", numbers)


def _check_vector(name: str, values: Tensor) -> None:
    if not isinstance(values, Tensor):
        raise DataError(f"Expected argument `{name}` to be a tensor, but got {type(values).__name__}.")
    if values.ndim != 1:
        raise DataError(f"Expected argument `{name}` to have shape [N], but got {tuple(values.shape)}.")
