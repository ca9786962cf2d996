"""Shows what ``caopd validate`` and ``caopd test`` measured: ``validate.json`` or ``test.json``, and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table

from caopd.commands.outputs import tell
from caopd.distributed import on_first_process
from caopd.evaluation import NO_VERDICT, Parts
from caopd.files import write_text
from caopd.metrics.catalogue import FLOOR, P_VALUE, shown_of_runs
from caopd.run_directory import run_directory
from caopd.texts import in_terminal
from caopd.training.callbacks.numbers import TITLE, count, p_value, with_interval, without_nan
from caopd.training.callbacks.run_config import results_directory
from caopd.training.callbacks.what_next import Command, measuring
from caopd.training.module import DistillationModule

IN_DOMAIN = "in_domain"
"""Name, in the files and the table, of all prompts of the tasks that are trained on."""


class ResultTables(Callback):
    """Writes and prints what a validation or a test measured, in place of Lightning's list of every value.

    ``validate.json`` and ``test.json`` lie in the run directory, in the folder of the step that was measured. They say
    which weights these were (``model``, ``checkpoint``, ``step``) and hold ``tasks``: ``in_domain`` and
    every named task, each with the events ``greedy`` and ``sampled`` and, where several completions are sampled,
    ``vote`` and ``vote_stated``. What is undefined is null. The validations of a fit are in its logs and in
    ``metrics.json``.
    """

    def __init__(self) -> None:
        self._command: TrainerFn | None = None
        self._directory = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take note of the command; a fit validates as it ends, which is then none."""
        self._command = self._command or TrainerFn(stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The next command may be another one."""
        if stage == self._command:
            self._command = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The next command may be another one."""
        self._command = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the folder; a collective operation, so that every process must ask."""
        if self._command == TrainerFn.VALIDATING:
            self._directory = results_directory(trainer)
            trainer.validate_loop.verbose = False

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the folder; a collective operation, so that every process must ask."""
        self._directory = results_directory(trainer)
        trainer.test_loop.verbose = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute all metrics; process 0 writes and prints them."""
        if self._command == TrainerFn.VALIDATING and isinstance(pl_module, DistillationModule):
            self._show(trainer, pl_module, TrainerFn.VALIDATING)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute all metrics; process 0 writes and prints them."""
        if isinstance(pl_module, DistillationModule):
            self._show(trainer, pl_module, TrainerFn.TESTING)

    def _show(self, trainer: Trainer, module: DistillationModule, command: TrainerFn) -> None:
        scores = module.validation_scores if command == TrainerFn.VALIDATING else module.test_scores
        in_domain, named = scores.compute()
        checkpoint = str(trainer.ckpt_path) if trainer.ckpt_path else None
        record = {"model": module.source.name_or_path, "checkpoint": checkpoint, "step": trainer.global_step}
        following = ("test", "predict") if command == TrainerFn.VALIDATING else ("predict",)
        then = measuring(following, run_directory(trainer), checkpoint)  # a collective operation
        on_first_process(lambda: self._report(command.value, {IN_DOMAIN: in_domain, **named}, record, then))

    def _report(
        self, command: str, tasks: Mapping[str, Parts], record: Mapping[str, object], then: Sequence[Command]
    ) -> None:
        found = {task: {part: without_nan(values) for part, values in parts.items()} for task, parts in tasks.items()}
        path = self._directory / f"{command}.json"
        write_text(path, json.dumps({**record, "tasks": found}, indent=2, allow_nan=False) + "\n")
        Console().print(results_table(tasks))
        tell([("metrics", path)], then)


def results_table(tasks: Mapping[str, Parts]) -> Table:
    """Return the headline metrics of every event: a row for each, a column for every task.

    Args:
        tasks: Task -> part -> metric -> value.
    """
    table = Table(title=TITLE)
    table.add_column("metric")
    for task in tasks:
        table.add_column(in_terminal(task), justify="right")
    for part, metrics in next(iter(tasks.values())).items():
        table.add_section()
        shown = [spec.name for spec in shown_of_runs()] + [name for name in metrics if name.startswith("pass_at_")]
        missing = [NO_VERDICT] if any(parts.get(part, {}).get(NO_VERDICT) for parts in tasks.values()) else []
        for name in (*shown, FLOOR, P_VALUE, "n", *missing):
            table.add_row(f"{part}/{name}", *(_cell(parts.get(part, {}), name) for parts in tasks.values()))
    return table


def _cell(values: Mapping[str, float], name: str) -> str:
    if name in ("n", NO_VERDICT):
        return count(values.get(name))
    return p_value(values.get(name)) if name == P_VALUE else with_interval(values, name)
