"""Shows some held-out completions of every validation as a table."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from caopd.distributed import on_first_process
from caopd.evaluation import EvaluationBatch, ScoredCompletion
from caopd.run_directory import run_directory
from caopd.texts import shortened
from caopd.training.callbacks.media import log_table


class SampleCompletions(Callback):
    """Shows the first held-out prompts of every validation with a completion of each event, under ``val/completions``.

    TensorBoard and W&B show them; for other loggers they are a file under ``completions/`` of the run directory.

    Args:
        num_prompts: Number of prompts in the table, each with one row for every event.
        max_characters: Of texts longer than this, the middle is left out.
    """

    def __init__(self, num_prompts: int = 8, max_characters: int = 600) -> None:
        self.num_prompts = num_prompts
        self.max_characters = max_characters
        self._shown: list[list[tuple[str, ScoredCompletion]]] = []
        self._directory = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run directory; a collective operation, so that every process must ask."""
        self._directory = run_directory(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: EvaluationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first prompts, each with its first completion of every event."""
        if not batch.in_domain:
            return
        events = batch.events.items()
        firsts = [[(name, each) for each in done.completions[:: done.event.num_samples]] for name, done in events]
        prompts = [list(rows) for rows in zip(*firsts, strict=True)]
        self._shown += prompts[: self.num_prompts - len(self._shown)]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        shown, self._shown = self._shown, []
        rows = [self._row(event, completion) for prompt in shown for event, completion in prompt]
        on_first_process(lambda: log_table(trainer, self._directory, "completions", _COLUMNS, rows))

    def _row(self, event: str, completion: ScoredCompletion) -> list[str]:
        verified = completion.verified
        confidence, verdict = verified.reading.value, verified.verdict
        return [
            shortened(completion.example.question, self.max_characters),
            event,
            shortened(verified.rollout.text, self.max_characters),
            shortened(completion.example.target, self.max_characters),
            "no verdict" if verdict is None else "yes" if verdict.correct else "no",
            "none" if confidence is None else f"{confidence:.2f}",
            verified.reading.outcome.value,
            "-" if verdict is None else verdict.outcome.value,
        ]


_COLUMNS = ("question", "event", "completion", "target", "correct", "confidence", "confidence form", "answer form")
