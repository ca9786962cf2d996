"""Joins the predictions of two models on their prompts, and finds the thresholds that a user asks for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from caopd.commands.score.predictions import Predictions, read_predictions
from caopd.errors import ConfigError, DataError
from caopd.metrics.cost_curve import CascadeCurve, OperatingPoint, cascade_curve

MAX_SHOWN = 5
"""Most prompts that an error names."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user asked for, and the operating points found.

    Attributes:
        target_accuracy: The accuracy that was asked for, or None.
        budget: The largest mean cost per prompt that was asked for, or None.
        for_target: The cheapest operating point that is at least so accurate; None where none is.
        for_budget: The most accurate operating point within the budget; None where none is.
    """

    target_accuracy: float | None
    budget: float | None
    for_target: OperatingPoint | None
    for_budget: OperatingPoint | None

    @classmethod
    def of(cls, curve: CascadeCurve, target_accuracy: float | None = None, budget: float | None = None) -> Choices:
        """Find the operating points that were asked for.

        Args:
            curve: The cascade's operating points.
            target_accuracy: The smallest accuracy, in [0, 1]; None asks for none.
            budget: The largest mean cost per prompt; None asks for none.

        Raises:
            ConfigError: A value is outside what a curve can reach.
        """
        if target_accuracy is not None and not 0 <= target_accuracy <= 1:
            raise ConfigError(f"Expected `--target_accuracy` to be from 0 to 1, but got {target_accuracy}.")
        if budget is not None and not budget >= 0:
            raise ConfigError(f"Expected `--budget` to be at least 0, but got {budget}.")
        return cls(
            target_accuracy,
            budget,
            None if target_accuracy is None else curve.cheapest(target_accuracy),
            None if budget is None else curve.best(budget),
        )


def read_cascade(
    small: Path, large: Path, small_cost: float = 1.0, large_cost: float = 10.0
) -> tuple[CascadeCurve, str | None]:
    """Read two files of predictions and try every threshold.

    Args:
        small: Predictions of the small model, JSON lines.
        large: Predictions of the large model for the same prompts.
        small_cost: Cost of a call of the small model.
        large_cost: Cost of a call of the large model.

    Returns:
        The curve, and the event that both files are of; None where they do not say.

    Raises:
        DataError: Lines that cannot be read, files that do not hold one line for each of the same prompts, or one file
            of greedy and one of sampled completions.
        ConfigError: A cost is negative or not finite.
        OSError: A file cannot be read.
    """
    mine, theirs = (_one_a_prompt(path) for path in (small, large))
    _check_same_prompts(mine, theirs, small, large)
    events = {each.event for each in (mine, theirs) if each.event is not None}
    if len(events) > 1:
        raise DataError(
            f"Expected {small} and {large} to be of one event, but their lines are {mine.event} and {theirs.event} "
            "completions. Give the same kind of both models, the one that they will answer with."
        )
    # With one line per prompt, the number of a prompt is that of its line.
    both = [name for name in mine.prompt_ids if name in theirs.prompt_ids]
    num_left_out = len(set(mine.unjudged) | set(theirs.unjudged))
    if num_left_out:
        warnings.warn(f"{num_left_out:,} prompts without a verdict in one of the files are left out.", stacklevel=2)
    mine_N, theirs_N = ([each.prompt_ids[name] for name in both] for each in (mine, theirs))
    curve = cascade_curve(
        torch.from_numpy(mine.confidence[mine_N]),
        torch.from_numpy(mine.correct[mine_N]),
        torch.from_numpy(theirs.correct[theirs_N]),
        small_cost,
        large_cost,
    )
    return curve, next(iter(events), None)


def _one_a_prompt(path: Path) -> Predictions:
    predictions = read_predictions(path)
    lines_P = np.bincount(predictions.prompt)
    if len(predictions.prompt_ids) < len(lines_P):
        raise DataError(
            f"Expected every line of {path} to have a `prompt_id`, which joins the two models, but "
            f"{len(lines_P) - len(predictions.prompt_ids):,} have none."
        )
    repeated = [name for name, number in predictions.prompt_ids.items() if lines_P[number] > 1]
    if repeated:
        raise DataError(
            f"Expected one line per prompt in {path}, but {len(repeated):,} prompts have several: {_some(repeated)}. "
            "Keep one completion of each, for example the greedy one."
        )
    return predictions


def _check_same_prompts(mine: Predictions, theirs: Predictions, small: Path, large: Path) -> None:
    for path, other, missing in (
        (small, large, theirs.prompt_ids.keys() - mine.prompt_ids.keys() - set(mine.unjudged)),
        (large, small, mine.prompt_ids.keys() - theirs.prompt_ids.keys() - set(theirs.unjudged)),
    ):
        if missing:
            raise DataError(
                f"Expected {small} and {large} to hold the same prompts, but {len(missing):,} of {other} are not in "
                f"{path}: {_some(sorted(missing, key=str))}. Predict the same split with both models."
            )


def _some(names: list[int | str]) -> str:
    return ", ".join(map(repr, names[:MAX_SHOWN])) + (", ..." if len(names) > MAX_SHOWN else "")
