"""A progress bar that says what the run is doing, how far that has come, and how long it will still take."""

from __future__ import annotations

import math
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console

from caopd.rounds.phases import Phase
from caopd.training.callbacks.held_out_row import HeldOutRow
from caopd.training.callbacks.progress_rows import ProgressRows, Row, clock_time, named_values
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule

_HEADLINE = {"accuracy": "val/greedy/accuracy", "ECE": "val/greedy/ece"}
"""Name that is shown -> name in the log, of what the last validation measured."""
_BATCH_INDEX = 4
"""Place of a batch's number among the arguments of the hooks that end it."""
_UNITS = {"rollout": "completions", "train": "batches"}


class PhaseProgressBar(ProgressBar):
    """Shows the run, the round, and its phase (sync, rollout, verify or train) or a validation, each with time left.

    Below them stand the loss, mu_hat, and the accuracy and ECE of the last validation's greedy completions. Where there
    is no terminal, a line says the same at the end of every round and validation, and now and then between.

    The time left of a round is known once one has ended: it is that of the rounds before, validations not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._rows: ProgressRows | None = None
        self._forget()

    def _forget(self) -> None:
        """Begin a run of which nothing is known yet."""
        self._run = self._round = self._part = Row("run")
        self._values = dict.fromkeys(("loss", "mu_hat", *_HEADLINE), math.nan)
        self._num_rounds, self._round_seconds, self._validation_seconds = 0, 0.0, 0.0
        self._is_in_round = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with each fit anew, in process 0."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is drawn: it holds locks, and processes that a strategy starts draw anew."""
        return self.__dict__ | {"_rows": None}

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def print(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Print above what is drawn."""
        for line in keywords.get("sep", " ").join(map(str, arguments)).split("\n"):
            self._shown.say(line)

    @property
    def _shown(self) -> ProgressRows:
        if self._rows is None:
            self._rows = ProgressRows(Console())
        return self._rows

    @property
    def _is_fit(self) -> bool:
        return self._enabled and self.trainer.state.fn == TrainerFn.FITTING

    def _show(self, part: Row) -> None:
        """Draw the run and its round, where there are such, and what is done right now."""
        self._part = part
        rows = [self._run] if self._is_fit and self._run.unit else []
        self._shown.rows = [*rows, *([self._round] if self._is_in_round else []), part]
        self._shown.values = self._values
        self._shown.start()
        self._shown.redraw()

    def _stop(self) -> None:
        if self._rows is not None:
            self._rows.stop()

    def on_phase(self, phase: Phase) -> None:
        """Show the phase of a round, the first of which begins the round."""
        if not self._is_fit or self.trainer.sanity_checking:
            return
        if not self._is_in_round:
            self._begin_round()
        self._show(Row(phase, _UNITS.get(phase, "")))

    def on_progress(self, done: float, total: int) -> None:
        """Show how far completions have come: of a round's rollouts, or of held-out prompts."""
        if not self._enabled:
            return
        if isinstance(self._part, HeldOutRow):
            self._part.sampled(done, total)
        else:
            self._part.done, self._part.total = done, float(total)
        self._advance()

    def _advance(self) -> None:
        self._round.done = min(self._round.elapsed, self._round.total or math.inf)
        self._shown.advanced()

    def _begin_round(self) -> None:
        trainer, number = self.trainer, self.trainer.current_epoch
        if not self._run.unit:
            self._run = Row("run", "rounds", self._last_round(trainer), number, self._run_seconds_left)
        expected = self._round_seconds / self._num_rounds if self._num_rounds else None
        self._round = Row(f"round {number + 1}", total=expected, seconds_left=self._round_seconds_left)
        self._validation_seconds, self._is_in_round = 0.0, True

    def _last_round(self, trainer: Trainer) -> float | None:
        """Return the number of rounds of the run; None where nothing limits it."""
        module = trainer.lightning_module
        limits = [int(trainer.max_epochs)] if trainer.max_epochs is not None and trainer.max_epochs > 0 else []
        if trainer.max_steps > 0 and isinstance(module, DistillationModule) and module.num_steps_per_round:
            limits.append(-(-trainer.max_steps // module.num_steps_per_round))
        return float(min(limits)) if limits else None

    def _round_seconds_left(self) -> float | None:
        return None if self._round.total is None else max(0.0, self._round.total - self._round.elapsed)

    def _run_seconds_left(self) -> float | None:
        """Return the time of the rounds to come, those before taken together with their validations."""
        if not self._num_rounds or self._run.total is None:
            return None
        each = (self._round.begun - self._run.begun if self._is_in_round else self._run.elapsed) / self._num_rounds
        spent = self._round.elapsed if self._is_in_round else 0.0
        return max(0.0, (self._run.total - self._run.done) * each - spent)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show that training begins: the rollouts are there."""
        if self._enabled:
            if not self._is_in_round:
                self._begin_round()
            self._values |= _mu_hat(trainer)
            total = float(self.total_train_batches)
            self._show(Row("train", _UNITS["train"], total if math.isfinite(total) else None))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Count the micro-batch, and show the loss of the last optimizer step."""
        if self._enabled:
            self._part.done = batch_idx + 1
            if "train/loss" in trainer.progress_bar_metrics:
                self._values["loss"] = float(trainer.progress_bar_metrics["train/loss"])
            self._advance()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the round, and say where it has led if nothing is drawn."""
        if not self._enabled:
            return
        self._is_in_round = False
        self._num_rounds += 1
        self._round_seconds += self._round.elapsed - self._validation_seconds
        self._run.done = trainer.current_epoch + 1
        if not self._shown.is_live:
            self._say_round()
        if trainer.should_stop or self._run.done == self._run.total:
            self._stop()  # Lightning says why training ends past what is drawn

    def _say_round(self) -> None:
        left = self._run_seconds_left()
        words = [f"round {self._run.amount.removesuffix(' rounds')}", named_values(self._values)]
        times = f"{clock_time(self._run.elapsed)} elapsed"
        self._shown.say(": ".join(words) + f"  {times}" + ("" if left is None else f", {clock_time(left)} left"))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show how far a validation comes."""
        self._begin_held_out(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show how far a test comes."""
        self._begin_held_out(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show how far predicting comes."""
        self._begin_held_out(trainer)

    def _begin_held_out(self, trainer: Trainer) -> None:
        if self._enabled:
            self._show(HeldOutRow(trainer))

    def on_validation_batch_end(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401
        """Count a batch of held-out prompts; arguments as Lightning passes them."""
        if isinstance(self._part, HeldOutRow):
            self._part.end_batch(arguments[_BATCH_INDEX])
            self._advance()

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what was measured."""
        if not self._enabled:
            return
        self._validation_seconds += self._part.elapsed
        found = {name: trainer.callback_metrics.get(logged) for name, logged in _HEADLINE.items()}
        measured = {name: float(value) for name, value in found.items() if value is not None}
        self._values |= measured
        if not self._shown.is_live:
            self._shown.say(f"validation at step {trainer.global_step}: {named_values(measured)}")
        self.on_test_end(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bars away, unless training goes on."""
        if self._enabled:
            self._part = Row("")
            self._shown.rows = self._shown.rows[:-1]
            if not self._is_fit:
                self._stop()

    on_predict_end = on_test_end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bars away, so that what a fit prints at its end stands in their place."""
        if self._enabled:
            self._stop()
            if self._shown.is_live and self._num_rounds:
                self._say_round()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bars away."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the bars away."""
        self._stop()


def _mu_hat(trainer: Trainer) -> dict[str, float]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    known = isinstance(data, RolloutDataModule) and "mu_hat" in data.statistics
    return {"mu_hat": data.statistics["mu_hat"]} if known else {}
