"""Collects what is known of each run: its config, metrics, training curves and stated confidences."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    Measured,
    class_name,
    method_name,
    read_config,
    read_metrics,
    run_of_checkpoint,
    setting,
)
from caopd.types import GREEDY, SAMPLED, verdicts_of

EVENTS = (GREEDY, SAMPLED)
CURVES = {
    **{
        f"val/{event}/{name}": f"{CATALOGUE[name].title} (validation, {event})"
        for name in ("accuracy", "mean_confidence", "ece", "brier")
        for event in EVENTS
    },
    "rollout/mu_hat": "Empirical confidence of the rollouts",
    "train/loss": "Training loss (each method's own)",
}
"""Training curves that are shown: name in the log -> title of the panel."""


@dataclass(frozen=True)
class RunRecord:
    """What the directory of a run tells about it.

    Attributes:
        name: Name of the run in tables and figures; no two runs share one.
        directory: The run directory.
        config: The run's config; empty where there is none.
        initial: What was measured before training, None where nothing was.
        final: What was measured after training, None where nothing was.
        curves: Name in the log -> points (step, value); what was not logged is left out.
        predictions: Event -> what ``caopd predict`` wrote for the test split; without an event that has no file.
        rollouts: Confidences, verdicts and prompts of the rollouts of the last round on disk, None without one.
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    initial: Measured | None
    final: Measured | None
    curves: Mapping[str, Sequence[tuple[float, float]]]
    predictions: Mapping[str, Predictions]
    rollouts: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    @property
    def method(self) -> str:
        """Name of the method's class, with that of its backbone where it has one."""
        return method_name(self.config)

    @property
    def task(self) -> str:
        """Name of the task's class."""
        return class_name(setting(self.config, "data", "task"))


def collect(paths: Sequence[Path], names: Sequence[str] | None = None) -> list[RunRecord]:
    """Read runs.

    Args:
        paths: Run directories, or folders with run directories somewhere below.
        names: Names of the runs, in the order in which these are found; None takes the names of their methods, numbered
            where they repeat.

    Raises:
        ConfigError: A folder holds no run, there are not as many names as runs, or a name is given twice.
        DataError: A file exists but cannot be read.
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
    files = {event: _predictions_of(directory, event) for event in EVENTS}
    initial, final = read_metrics(directory)
    return RunRecord(
        name=name,
        directory=directory,
        config=config,
        initial=initial,
        final=final,
        curves=_curves(directory, config),
        predictions={event: read_predictions(path) for event, path in files.items() if path is not None},
        rollouts=_last_rollouts(directory),
    )


def _predictions_of(directory: Path, event: str) -> Path | None:
    """Return the newest file of the most trained weights that predicted; None without one."""
    name = f"predictions.{event}.jsonl"
    files = list(directory.glob(f"step_*/{name}")) or list(directory.glob(name))
    return max(files, key=lambda file: (file.parent.name.partition("-")[0], file.stat().st_mtime_ns), default=None)


def _curves(directory: Path, config: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Read a run's curves, from where it began: those of the run whose checkpoint it started from come first."""
    own = _tensorboard_curves(directory) or _csv_curves(directory / CSV_LOG)
    checkpoint = setting(config, "ckpt_path")
    before = run_of_checkpoint(Path(checkpoint)) if isinstance(checkpoint, str) else directory
    # A run may be copied together with what it says of another one, or name itself: each directory is read once.
    if before == directory.resolve() or not (before / CONFIG).is_file():
        return own
    earlier = _tensorboard_curves(before) or _csv_curves(before / CSV_LOG)
    starts = {tag: curve[0][0] for tag, curve in own.items()}
    joined = {tag: [point for point in curve if point[0] < starts[tag]] for tag, curve in earlier.items() if tag in own}
    return {tag: joined.get(tag, []) + curve for tag, curve in own.items()}


def _tensorboard_curves(directory: Path) -> dict[str, list[tuple[float, float]]]:
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


def _by_step(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return one point for every step, the last that was logged: a resumed run logs some steps again."""
    return sorted(dict(points).items())


def _csv_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
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


def _last_rollouts(directory: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    files = sorted((directory / "rollouts").glob("round_*.jsonl"))
    if not files:
        return None
    groups = load_groups(files[-1])
    every = [verified for group in groups for verified in group.judged.rollouts]
    prompt = np.repeat(np.arange(len(groups)), [len(group.judged.rollouts) for group in groups])
    confidence = [np.nan if each.reading.value is None else each.reading.value for each in every]
    correct = np.array([each.correct for each in verdicts_of(every)], dtype=bool)
    return np.array(confidence, dtype=np.float64), correct, prompt
