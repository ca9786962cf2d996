"""Reads the curves that loggers have left in the directories of a run."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from caopd.errors import DataError
from caopd.metrics.catalogue import CATALOGUE
from caopd.run_directory import CSV_LOG
from caopd.types import GREEDY, SAMPLED

CURVES = {
    **{
        f"val/{event}/{name}": f"{CATALOGUE[name].title} (validation, {event})"
        for name in ("accuracy", "mean_confidence", "ece", "brier")
        for event in (GREEDY, SAMPLED)
    },
    "rollout/mu_hat": "Empirical confidence of the rollouts",
    "train/loss": "Training loss (each method's own)",
}
"""Training curves that are shown: name in the log -> title of the panel."""
Curve = Sequence[tuple[float, float]]
"""Points (step, value), one for each step, in the order of the steps."""


def joined_curves(directories: Sequence[Path]) -> dict[str, Curve]:
    """Read the curves of a run that went on in one directory after another, each as one.

    Where a directory begins, what was logged before of the same and of later steps is left out: it trained further
    there than the checkpoint that the next one began with.

    Args:
        directories: The directories, in the order of time.

    Returns:
        Name in the log -> points; what was not logged is left out.

    Raises:
        DataError: A log cannot be read.
    """
    joined: dict[str, Curve] = {}
    for directory in directories:
        own = _tensorboard_curves(directory) or _csv_curves(directory / CSV_LOG)
        begin = min((curve[0][0] for curve in own.values()), default=float("inf"))
        before = {tag: [point for point in curve if point[0] < begin] for tag, curve in joined.items()}
        tags = [tag for tag in CURVES if before.get(tag) or tag in own]
        joined = {tag: [*before.get(tag, ()), *own.get(tag, ())] for tag in tags}
    return joined


def _tensorboard_curves(directory: Path) -> Mapping[str, Curve]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = sorted(directory.rglob("events.out.tfevents.*"))  # a logger's `sub_dir` is a folder below it
    if not files:
        return {}
    # A run that went on has marked as void what it logs again; for the reader that is worth a warning, but no user.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(files[0].parent), size_guidance={"scalars": 2000, "images": 1, "tensors": 1})
    events.Reload()
    there = events.Tags()["scalars"]
    return {tag: _by_step((event.step, event.value) for event in events.Scalars(tag)) for tag in CURVES if tag in there}


def _by_step(points: Iterable[tuple[float, float]]) -> Curve:
    """Return one point for every step, the last that was logged: a resumed run logs some steps again."""
    return sorted(dict(points).items())


def _csv_curves(path: Path) -> Mapping[str, Curve]:
    """Read the curves that Lightning's CSVLogger wrote: one row per moment, one column per name."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        curves = {
            tag: _by_step((float(row["step"]), float(row[tag])) for row in rows if row.get(tag)) for tag in CURVES
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"Expected {path} to hold numbers by `step`, as Lightning's CSVLogger writes them, but it does not "
            f"({type(error).__name__}: {error}). Restore it or remove it."
        ) from error
    return {tag: curve for tag, curve in curves.items() if curve}
