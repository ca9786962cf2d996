"""What is known of each run: its config, its metrics, its training curves, its confidences."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caopd.commands.score.predictions import Predictions, read_predictions
from caopd.errors import ConfigError, DataError
from caopd.metrics.catalogue import CATALOGUE
from caopd.rounds.buffer import load_groups
from caopd.run_directory import (
    CONFIG,
    CSV_LOG,
    METRICS,
    Metrics,
    class_name,
    method_name,
    read_config,
    read_metrics,
    setting,
)

PREDICTIONS = "predictions.jsonl"
CURVES = {
    **{
        f"val/{name}": f"{CATALOGUE[name].title} (validation)"
        for name in ("accuracy", "mean_confidence", "ece", "brier")
    },
    "rollout/mu_hat": "Empirical confidence of the rollouts",
    "train/loss": "Training loss (each method's own)",
}
"""Name in the log -> title of its panel."""


@dataclass(frozen=True)
class RunRecord:
    """A run, as far as its directory tells.

    Attributes:
        name: Names the run in tables and figures; no two runs share one.
        directory: The run directory.
        config: Its config; empty without one.
        initial: Metrics before training, None where not measured.
        final: Metrics after training, None where not measured.
        curves: Name in the log -> (step, value); without what was not logged.
        predictions: Of ``caopd predict`` on the test split, None without the file.
        rollouts: Confidences and verdicts of the last round that is on disk, None without one.
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    initial: Metrics | None
    final: Metrics | None
    curves: Mapping[str, Sequence[tuple[float, float]]]
    predictions: Predictions | None
    rollouts: tuple[np.ndarray, np.ndarray] | None

    @property
    def method(self) -> str:
        """Name of the method's class, of its backbone too where it has one."""
        return method_name(self.config)

    @property
    def task(self) -> str:
        """Name of the task's class."""
        return class_name(setting(self.config, "data", "task"))


def collect(paths: Sequence[Path], names: Sequence[str] | None = None) -> list[RunRecord]:
    """Read runs.

    Args:
        paths: Run directories, or folders with run directories somewhere below.
        names: Of the runs found, in their order; None names them by their methods, numbered where these repeat.

    Raises:
        ConfigError: No run in a folder, or another number of names than of runs, or a name twice.
        DataError: A file that is there and cannot be read.
    """
    directories = list(dict.fromkeys(directory for path in paths for directory in _runs_in(path)))
    configs = [read_config(each / CONFIG) if (each / CONFIG).is_file() else {} for each in directories]
    given = list(names) if names is not None else _numbered([method_name(config) for config in configs])
    if len(given) != len(directories) or len(set(given)) < len(given):
        raise ConfigError(
            f"Expected {len(directories)} different names for the runs {', '.join(map(str, directories))}, but got "
            f"{len(given)}: {', '.join(given)}."
        )
    return [_record(*run) for run in zip(given, directories, configs, strict=True)]


def _runs_in(path: Path) -> list[Path]:
    found = [path] if (path / METRICS).is_file() else sorted(file.parent for file in path.rglob(METRICS))
    if not found:
        raise ConfigError(
            f"Expected {path} to be a run directory or a folder with some, but there is no {METRICS} in it or below: "
            "`caopd fit` writes it at its end."
        )
    return found


def _numbered(names: Sequence[str]) -> list[str]:
    total, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if total[name] == 1 else f"{name} #{seen[name]}")
    return numbered


def _record(name: str, directory: Path, config: Mapping[str, Any]) -> RunRecord:
    predictions = directory / PREDICTIONS
    initial, final = read_metrics(directory)
    return RunRecord(
        name=name,
        directory=directory,
        config=config,
        initial=initial,
        final=final,
        curves=_tensorboard_curves(directory) or _csv_curves(directory / CSV_LOG),
        predictions=read_predictions(predictions) if predictions.is_file() else None,
        rollouts=_last_rollouts(directory),
    )


def _tensorboard_curves(directory: Path) -> dict[str, list[tuple[float, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = sorted(directory.rglob("events.out.tfevents.*"))  # a logger's `sub_dir` lies below
    if not files:
        return {}
    events = EventAccumulator(str(files[0].parent), size_guidance={"scalars": 2000, "images": 1, "tensors": 1})
    events.Reload()
    there = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in CURVES if tag in there}


def _csv_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """What Lightning's CSVLogger writes: a row for each moment, a column for each name."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        curves = {tag: [(float(row["step"]), float(row[tag])) for row in rows if row.get(tag)] for tag in CURVES}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"Expected {path} to hold numbers by `step`, as Lightning's CSVLogger writes them, but it does not "
            f"({type(error).__name__}: {error}). Restore it or remove it."
        ) from error
    return {tag: curve for tag, curve in curves.items() if curve}


def _last_rollouts(directory: Path) -> tuple[np.ndarray, np.ndarray] | None:
    files = sorted((directory / "rollouts").glob("round_*.jsonl"))
    if not files:
        return None
    every = [verified for group in load_groups(files[-1]) for verified in group.rollouts]
    confidence = [np.nan if each.reading.value is None else each.reading.value for each in every]
    return np.array(confidence, dtype=np.float64), np.array([each.verdict.correct for each in every], dtype=bool)
