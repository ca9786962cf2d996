"""Compares the model before and after training: ``metrics.json`` in the run directory, and a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Table

from caopd.commands.outputs import tell
from caopd.distributed import on_first_process
from caopd.evaluation import NO_VERDICT
from caopd.files import write_text
from caopd.metrics.catalogue import FLOOR, P_VALUE, shown_of_runs
from caopd.run_directory import METRICS, run_directory
from caopd.training.callbacks.numbers import TITLE, count, number, p_value, with_interval, without_nan
from caopd.training.callbacks.run_config import check_alone
from caopd.training.callbacks.what_next import after_fit, kept_checkpoint
from caopd.training.module import DistillationModule

Moment = dict[str, Any]
"""``step``, and event -> metric -> value."""


class BeforeAfterMetrics(Callback):
    """Keeps the metrics of the first and of the last validation of a fit, and reports both at its end.

    The first validation is Lightning's sanity check, before any optimizer step. It must be of the whole validation
    split (``num_sanity_val_steps=-1``); a check of the first batches alone is not kept, and gives a warning. The last
    validation is of the trained weights: if they have changed since the last one of the fit, another one is run.

    ``metrics.json`` has the keys ``initial`` and ``final``, each with the ``step`` it was measured at, and every metric
    of the events ``greedy`` and ``sampled``; a metric that is undefined (an empty class, no parsed confidence) is null,
    and so is a moment without a validation.
    """

    def __init__(self) -> None:
        self.initial: Moment | None = None
        self.final: Moment | None = None
        self._directory = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run directory; a collective operation, so that every process must ask."""
        if stage == "fit":
            self._directory = run_directory(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a directory with another run's metrics, before they are replaced; a collective operation.

        Raises:
            ConfigError: Raised in every process, if the directory holds another run.
        """
        if trainer.loggers and self.initial is None and self.final is None:
            checkpoint = None if trainer.ckpt_path is None else str(trainer.ckpt_path)
            on_first_process(lambda: check_alone(self._directory, checkpoint, file=METRICS))

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so at the first of the two."""
        self.on_train_start(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know: the metrics before training, and the last ones."""
        return {"initial": self.initial, "final": self.final}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metrics of the first and of the last validation."""
        self.initial, self.final = state_dict["initial"], state_dict["final"]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the validation's metrics; the one before training also goes to the loggers, at step 0."""
        if not isinstance(pl_module, DistillationModule):
            return
        every, (in_domain, _) = pl_module.validation_scores.flat(), pl_module.validation_scores.compute()
        moment = {"step": trainer.global_step, **{part: _counted(metrics) for part, metrics in in_domain.items()}}
        if not trainer.sanity_checking:
            self.final = moment
            return
        if self.initial is not None or not _is_whole(trainer):  # a resumed run began elsewhere
            return
        self.initial = moment
        for logger in trainer.loggers:
            logger.log_metrics({f"val/{name}": value for name, value in every.items()}, step=0)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate weights that no validation has seen yet, write the file, and print the table.

        A run that is resumed after its last step is not trained at all, and this is the only hook that it reaches.
        """
        is_due = self.final is None or self.final["step"] != trainer.global_step
        # A strategy that forks or spawns has a launcher, and so has ddp, whose processes are no children of Python's.
        if is_due and trainer.strategy.launcher is not None and parent_process() is not None:
            rank_zero_warn(
                f"Expected training to end with a validation, since {type(trainer.strategy).__name__} here trains in "
                f"processes of its own, from which no other can be started: `final` in {METRICS} is the last one that "
                "there was. Set `check_val_every_n_epoch` to a divisor of `max_epochs`, or the strategy to ddp."
            )
        elif is_due:
            fitting = replace(trainer.state)
            trainer.validate(pl_module, datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
            trainer.state = fitting
        on_first_process(lambda: self._report(trainer))

    def _report(self, trainer: Trainer) -> None:
        path, checkpoint = self.write(), kept_checkpoint(trainer)
        Console().print(self.table())
        files = [("metrics", path), *([] if checkpoint is None else [("checkpoint", checkpoint)])]
        tell(files, after_fit(trainer, self._directory))

    def write(self) -> Path:
        """Write ``metrics.json`` into the run directory and return its path."""
        path = self._directory / METRICS
        moments = {"initial": self.initial, "final": self.final}
        content = {name: moment and _as_json(moment) for name, moment in moments.items()}
        write_text(path, json.dumps(content, indent=2) + "\n")
        return path

    def table(self) -> Table:
        """Return the headline metrics of every event before and after training, side by side."""
        table = Table(title=TITLE)
        for column in ("metric", "before", "after", "change"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        before, after = self.initial or {}, self.final or {}
        for part in (name for name in {**before, **after} if name != "step"):
            table.add_section()
            _add_part(table, part, before.get(part, {}), after.get(part, {}))
        return table


def _add_part(table: Table, part: str, initial: Mapping[str, float], final: Mapping[str, float]) -> None:
    for spec in shown_of_runs():
        change = final.get(spec.name, math.nan) - initial.get(spec.name, math.nan)
        cells = (with_interval(values, spec.name) for values in (initial, final))
        table.add_row(f"{part}/{spec.name}", *cells, number(change, sign=True))
    table.add_row(f"{part}/{FLOOR}", with_interval(initial, FLOOR), with_interval(final, FLOOR), "")
    table.add_row(f"{part}/{P_VALUE}", p_value(initial.get(P_VALUE)), p_value(final.get(P_VALUE)), "")
    for name in ("n", *([NO_VERDICT] if initial.get(NO_VERDICT) or final.get(NO_VERDICT) else [])):
        table.add_row(f"{part}/{name}", count(initial.get(name)), count(final.get(name)), "")


def _counted(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics with their numbers of completions as integers."""
    return {**metrics, **{name: int(metrics[name]) for name in ("n", "n_parsed", NO_VERDICT) if name in metrics}}


def _as_json(moment: Moment) -> Moment:
    return {name: each if name == "step" else without_nan(each) for name, each in moment.items()}


def _is_whole(trainer: Trainer) -> bool:
    """Return whether the sanity check is of the whole validation split; warn where it is not."""
    checked, every = sum(trainer.num_sanity_val_batches), sum(trainer.num_val_batches)
    if checked < every:
        rank_zero_warn(
            f"Expected a validation of the whole split before training, but got the first {checked} of its {every} "
            f"batches: `initial` in {METRICS} will be null. Set `num_sanity_val_steps` of the Trainer to -1."
        )
    return checked == every
