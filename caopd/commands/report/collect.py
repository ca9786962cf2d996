"""Collects what is known of each run: its config, metrics, training curves and stated confidences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caopd.commands.report.curves import Curve, joined_curves
from caopd.commands.report.history import History, config_of, history, newest_of_each
from caopd.commands.score.predictions import Predictions, read_predictions
from caopd.errors import ConfigError
from caopd.rounds.buffer import load_groups
from caopd.run_directory import METRICS, Measured, class_name, method_name, read_metrics, setting
from caopd.types import GREEDY, SAMPLED, verdicts_of

EVENTS = (GREEDY, SAMPLED)


@dataclass(frozen=True)
class RunRecord:
    """What the directories of a run tell about it.

    Attributes:
        directory: The run directory, the last one where the run went on in several.
        history: All its directories, and those of the runs that it began with.
        config: The run's config; empty where there is none.
        initial: What was measured before training, None where nothing was.
        final: What was measured after training, None where nothing was.
        curves: Name in the log -> points (step, value); what was not logged is left out.
        predictions: Event -> what ``caopd predict`` wrote for the test split; without an event that has no file.
        rollouts: Confidences, verdicts and prompts of the rollouts of the last round on disk, None without one.
    """

    directory: Path
    history: History
    config: Mapping[str, Any]
    initial: Measured | None
    final: Measured | None
    curves: Mapping[str, Curve]
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

    @property
    def seed(self) -> str:
        """The seed of its rollouts, as its config says it; ``-`` where that does not."""
        seed = setting(self.config, "data", "seed")
        return "-" if seed is None else str(seed)


def collect(paths: Sequence[Path]) -> list[RunRecord]:
    """Read runs; one that went on in another of the directories is a part of that one.

    Args:
        paths: Run directories, or folders with run directories somewhere below.

    Raises:
        ConfigError: A folder holds no run, or a ``config.yaml`` no settings.
        DataError: A file exists but cannot be read.
    """
    found = {directory.resolve(): directory for path in paths for directory in _runs_in(path)}
    histories = {directory: history(directory) for directory in found.values()}
    return [_record(directory, histories[directory]) for directory in newest_of_each(histories)]


def _runs_in(path: Path) -> list[Path]:
    found = [path] if (path / METRICS).is_file() else sorted(file.parent for file in path.rglob(METRICS))
    if not found:
        raise ConfigError(
            f"Expected {path} to be a run directory or a folder with some, but there is no {METRICS} in it or below: "
            "`caopd fit` writes it at its end."
        )
    return found


def _record(directory: Path, past: History) -> RunRecord:
    files = {event: newest_predictions(past.parts, event) for event in EVENTS}
    initial, final = read_metrics(directory)
    return RunRecord(
        directory=directory,
        history=past,
        config=config_of(directory),
        initial=initial,
        final=final,
        curves=joined_curves(past.directories),
        predictions={event: read_predictions(path) for event, path in files.items() if path is not None},
        rollouts=_last_rollouts(directory),
    )


def newest_predictions(directories: Sequence[Path], event: str) -> Path | None:
    """Return the newest file of the most trained weights that predicted; None without one.

    Args:
        directories: The directories of a run.
        event: ``greedy`` or ``sampled``.
    """
    name = f"predictions.{event}.jsonl"
    files = [file for each in directories for file in each.glob(f"step_*/{name}")]
    files = files or [file for each in directories for file in each.glob(name)]
    return max(files, key=lambda file: (file.parent.name.partition("-")[0], file.stat().st_mtime_ns), default=None)


def last_round(directory: Path) -> Path | None:
    """Return the file with the rollouts of the last round on disk, None without one.

    Args:
        directory: The run directory.
    """
    return max((directory / "rollouts").glob("round_*.jsonl"), default=None)


def _last_rollouts(directory: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    file = last_round(directory)
    if file is None:
        return None
    groups = load_groups(file)
    every = [verified for group in groups for verified in group.judged.rollouts]
    prompt = np.repeat(np.arange(len(groups)), [len(group.judged.rollouts) for group in groups])
    confidence = [np.nan if each.reading.value is None else each.reading.value for each in every]
    correct = np.array([each.correct for each in verdicts_of(every)], dtype=bool)
    return np.array(confidence, dtype=np.float64), correct, prompt
