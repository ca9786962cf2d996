"""Writes predictions as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from caopd.distributed import gather_in_order, on_first_process
from caopd.evaluation import EvaluationBatch, ScoredCompletion
from caopd.files import write_text
from caopd.run_directory import run_directory
from caopd.texts import in_terminal


class PredictionWriter(Callback):
    """Writes one line per completion of ``caopd predict``: prompt_id, category, response, target, confidence, correct.

    Beside them stand the outcomes of reading: in which form confidence and answer are, or why none could be read.

    A completion without a verdict has null for ``correct``.

    Every task has a file of its own, and a second one for its several completions: ``predictions.jsonl``,
    ``predictions.chemistry.jsonl``, ``predictions.chemistry.sampled.jsonl``.

    Args:
        output: File to write; None is ``predictions.jsonl`` in the run directory. The names of the other files are
            made from it.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._path = Path()
        self._lines: dict[Path, list[str]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out where the files are, and make their folder."""
        directory = run_directory(trainer)  # a collective operation
        self._path = directory / "predictions.jsonl" if self.output is None else Path(self.output)
        # They are written at the end: what keeps them from being written should show before anything is sampled.
        on_first_process(lambda: self._path.parent.mkdir(parents=True, exist_ok=True))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: EvaluationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Gather the batch's completions in the order of the data and keep their lines."""
        completions = gather_in_order(batch.completions)
        if not trainer.is_global_zero:
            return
        lines = self._lines.setdefault(_file_of(batch, self._path), [])
        for index, completion in enumerate(completions):
            lines.append(json.dumps(_row(completion, batch, index), ensure_ascii=False) + "\n")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files and say where they are."""
        on_first_process(self._write)

    def _write(self) -> None:
        for path, lines in self._lines.items():
            write_text(path, "".join(lines))
            Console().print(in_terminal(f"predictions: {path}"), soft_wrap=True)
        self._lines = {}


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
        "confidence_outcome": verified.reading.outcome.value,
        "correct": None if verdict is None else int(verdict.correct),
        "answer": None if verdict is None else verdict.answer,
        "answer_outcome": None if verdict is None else verdict.outcome.value,
        "thoughts": verified.thoughts,
        "stop_reason": verified.rollout.stop_reason.value,
    }
