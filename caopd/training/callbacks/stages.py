"""Follows every task of a sequence through its stages: writes ``stages.json`` in the run directory, prints tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table

from caopd.distributed import on_first_process
from caopd.evaluation.forgetting import BEFORE, FORGETTING, Measurement, as_json, forgetting
from caopd.files import write_text
from caopd.metrics.catalogue import shown_of_runs
from caopd.rounds.prompts import stage_ends
from caopd.run_directory import STAGES, run_directory
from caopd.tasks import TaskSequence
from caopd.texts import in_terminal
from caopd.training.callbacks.numbers import number, with_interval, without_nan
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule


class StageMetrics(Callback):
    """Keeps the metrics before training and after every stage of a :class:`caopd.tasks.TaskSequence`.

    At the end of training it writes ``stages.json`` (``stages``: every task's metrics at each of these moments;
    ``forgetting``: what earlier tasks have lost), both by event, prints both, and logs
    ``forgetting/TASK/greedy/accuracy_drop``, ``.../ece_rise`` and ``.../brier_rise``, and so for ``sampled``. Without a
    sequence it does nothing.
    """

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []
        self._directory = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run directory; a collective operation, so that every process must ask."""
        if stage == "fit":
            self._directory = run_directory(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know: the metrics of the stages so far."""
        return {"measurements": [asdict(each) for each in self.measurements]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metrics of the stages so far."""
        self.measurements = [Measurement(**each) for each in state_dict["measurements"]]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the validation's metrics, if it is the one before training or at the end of a stage."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        stage = _stage_that_ended(trainer, data)
        if stage is None or not isinstance(pl_module, DistillationModule):
            return
        _, named = pl_module.validation_scores.compute()
        if stage == BEFORE and self.measurements:  # a resumed run began elsewhere
            return
        rounds = 0 if stage == BEFORE else trainer.current_epoch + 1
        tasks = {name: {part: without_nan(each) for part, each in parts.items()} for name, parts in named.items()}
        self.measurements.append(Measurement(stage, rounds, trainer.global_step, tasks))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, print the tables, and log what is forgotten.

        A run that is resumed after its last step is not trained at all, and this is the only hook that it reaches.
        """
        if self.measurements:
            on_first_process(lambda: self._report(trainer))

    def _report(self, trainer: Trainer) -> None:
        path = self._directory / STAGES
        write_text(path, json.dumps(as_json(self.measurements), indent=2, allow_nan=False) + "\n")
        console = Console()
        for table in stage_tables(self.measurements):
            console.print(table)
        console.print(in_terminal(f"stages: {path}"), soft_wrap=True)
        values = {
            f"forgetting/{task}/{part}/{name}": value
            for task, parts in forgetting(self.measurements).items()
            for part, losses in parts.items()
            for name, value in losses.items()
            if value is not None
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


def stage_tables(measurements: Sequence[Measurement]) -> list[Table]:
    """Return one table with every headline metric of every task at every moment, and one of what is forgotten.

    Args:
        measurements: The measurements, at least one.
    """
    matrix = Table(title="every task before training and after each stage")
    for column in ("metric", "after stage", *measurements[0].tasks):
        matrix.add_column(in_terminal(column), justify="left" if column in ("metric", "after stage") else "right")
    for part in next(iter(measurements[-1].tasks.values())):
        for spec in shown_of_runs():
            matrix.add_section()
            for index, each in enumerate(measurements):
                cells = [with_interval(parts.get(part, {}), spec.name) for parts in each.tasks.values()]
                matrix.add_row(f"{part}/{spec.name}" if index == 0 else "", in_terminal(each.stage), *cells)
    lost = Table(title="forgetting: from the end of the task's own stage to the end (positive: worse)")
    for column in ("task", "event", *FORGETTING):
        lost.add_column(column, justify="right" if column in FORGETTING else "left")
    values_of = forgetting(measurements)
    for task, parts in values_of.items():
        for part, values in parts.items():
            lost.add_row(in_terminal(task), part, *(number(value, sign=True) for value in values.values()))
    return [matrix, lost] if values_of else [matrix]


def _stage_that_ended(trainer: Trainer, data: object) -> str | None:
    """Return the stage whose last validation this is, ``BEFORE`` for the one before training; None for any other."""
    if not isinstance(data, RolloutDataModule) or not isinstance(data.task, TaskSequence):
        return None
    if trainer.sanity_checking:
        return BEFORE
    ends = dict(zip(stage_ends(data.stages), data.stages, strict=True))
    stage = ends.get(trainer.current_epoch + 1) if trainer.state.fn == TrainerFn.FITTING else None
    return None if stage is None else stage.name
