"""Writes predictions as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from caopd.distributed import gather_in_order
from caopd.evaluation import EvaluationBatch, ScoredCompletion


class PredictionWriter(Callback):
    """Writes one line per completion of ``caopd predict``: prompt_id, group, response, target, confidence, correct.

    Args:
        output: File to write; None is ``predictions.jsonl`` in the run directory.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._file: IO[str] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file in the first process."""
        directory = Path(trainer.log_dir or trainer.default_root_dir)  # a collective operation
        if trainer.is_global_zero:
            path = directory / "predictions.jsonl" if self.output is None else Path(self.output)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: EvaluationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Gather the batch's completions in the order of the data and write them."""
        for completion in gather_in_order(batch.completions):
            if self._file is not None:
                self._file.write(json.dumps(_row(completion), ensure_ascii=False) + "\n")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file and say where it is."""
        if self._file is not None:
            self._file.close()
            Console().print(f"predictions: {self._file.name}", soft_wrap=True)
            self._file = None


def _row(completion: ScoredCompletion) -> dict[str, object]:
    verified = completion.verified
    return {
        "prompt_id": completion.example.id,
        "group": completion.example.group,
        "response": verified.rollout.text,
        "target": completion.example.target,
        "confidence": verified.reading.value,
        "correct": int(verified.verdict.correct),
        "answer": verified.verdict.answer,
        "stop_reason": verified.rollout.stop_reason.value,
    }
