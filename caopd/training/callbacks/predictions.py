"""Writes predictions as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from caopd.distributed import gather_in_order
from caopd.evaluation import EvaluationBatch, ScoredCompletion
from caopd.run_directory import run_directory
from caopd.texts import in_terminal


class PredictionWriter(Callback):
    """Writes one line per completion of ``caopd predict``: prompt_id, category, response, target, confidence, correct.

    A completion without a verdict has null for ``correct``.

    Every task has a file of its own, and a second one for its several completions: ``predictions.jsonl``,
    ``predictions.chemistry.jsonl``, ``predictions.chemistry.sampled.jsonl``.

    Args:
        output: File to write; None is ``predictions.jsonl`` in the run directory. The names of the other files are
            made from it.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._path: Path | None = None
        self._files: dict[Path, IO[str]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out where the files are, in the first process."""
        directory = run_directory(trainer)  # a collective operation
        if trainer.is_global_zero:
            self._path = directory / "predictions.jsonl" if self.output is None else Path(self.output)
            self._path.parent.mkdir(parents=True, exist_ok=True)

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
        completions = gather_in_order(batch.completions)
        if self._path is None:
            return
        path = _file_of(batch, self._path)
        if path not in self._files:
            self._files[path] = path.open("w", encoding="utf-8", errors="backslashreplace")
        for index, completion in enumerate(completions):
            self._files[path].write(json.dumps(_row(completion, batch, index), ensure_ascii=False) + "\n")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the files and say where they are."""
        for path, file in self._files.items():
            file.close()
            Console().print(in_terminal(f"predictions: {path}"), soft_wrap=True)
        self._files = {}


def _file_of(batch: EvaluationBatch, path: Path) -> Path:
    parts = [batch.task, "" if batch.num_samples is None else "sampled"]
    return path.with_name(".".join([path.stem, *filter(None, parts)]) + path.suffix)


def _row(completion: ScoredCompletion, batch: EvaluationBatch, index: int) -> dict[str, object]:
    """Return one line; ``index`` counts the completions of the batch, in which every prompt has equally many."""
    verified = completion.verified
    verdict = verified.verdict
    task = {"task": batch.task} if batch.task else {}
    sample = {} if batch.num_samples is None else {"sample": index % batch.num_samples}
    return {
        **task,
        "prompt_id": completion.example.id,
        **sample,
        "category": completion.example.category,
        "response": verified.rollout.text,
        "target": completion.example.target,
        "confidence": verified.reading.value,
        "correct": None if verdict is None else int(verdict.correct),
        "answer": None if verdict is None else verdict.answer,
        "stop_reason": verified.rollout.stop_reason.value,
    }
