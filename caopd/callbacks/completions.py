"""Shows some held-out completions as a table in TensorBoard."""

from __future__ import annotations

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from caopd.evaluation import EvaluationBatch, ScoredCompletion


class SampleCompletions(Callback):
    """Writes the first held-out completions of every validation under ``val/completions``.

    Args:
        num_completions: Rows of the table.
        max_characters: Longer texts are shown with their middle left out.
    """

    def __init__(self, num_completions: int = 8, max_characters: int = 600) -> None:
        self.num_completions = num_completions
        self.max_characters = max_characters
        self._shown: list[ScoredCompletion] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: EvaluationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first completions."""
        if batch.is_headline:
            self._shown += batch.completions[: self.num_completions - len(self._shown)]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        shown, self._shown = self._shown, []
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
                table = "\n".join([_HEADER, *(self._row(completion) for completion in shown)])
                logger.experiment.add_text("val/completions", table, trainer.global_step)

    def _row(self, completion: ScoredCompletion) -> str:
        verified = completion.verified
        confidence = verified.reading.value
        cells = [
            self._cell(completion.example.question),
            self._cell(verified.rollout.text),
            self._cell(completion.example.target),
            "yes" if verified.verdict.correct else "no",
            verified.reading.outcome.value if confidence is None else f"{confidence:.2f}",
        ]
        return f"| {' | '.join(cells)} |"

    def _cell(self, text: str) -> str:
        if len(text) > self.max_characters:
            half = self.max_characters // 2
            text = f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
        return escaped.replace("\n", "<br>")


_HEADER = "| question | completion | target | correct | confidence |\n|---|---|---|---|---|"
