"""Writes predictions as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from caopd.commands.outputs import tell
from caopd.distributed import gather_in_order, on_first_process
from caopd.evaluation import EvaluationBatch, Event, ScoredCompletion
from caopd.files import write_text
from caopd.run_directory import run_directory
from caopd.training.callbacks.run_config import results_directory
from caopd.training.callbacks.what_next import Command, reporting


class PredictionWriter(Callback):
    """Writes one line per completion of ``caopd predict``: event, prompt_id, question, response, confidence, correct.

    Beside them stand the outcomes of reading: in which form confidence and answer are, or why none could be read.

    A completion without a verdict has null for ``correct``.

    Every task has a file for each event: ``predictions.greedy.jsonl``, ``predictions.sampled.jsonl``,
    ``predictions.chemistry.greedy.jsonl``.

    Args:
        output: What the names of the files are made from; None is ``predictions.jsonl`` in the run directory, in the
            folder of the step that predicts.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._path = self._run = Path()
        self._lines: dict[Path, list[str]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out where the files are, and make their folder."""
        directory, self._run = results_directory(trainer), run_directory(trainer)  # collective operations
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
        for completed in batch.events.values():
            completions = gather_in_order(completed.completions)
            if trainer.is_global_zero:
                lines = self._lines.setdefault(self._file_of(batch.task, completed.event), [])
                rows = (_row(each, batch.task, completed.event, index) for index, each in enumerate(completions))
                lines += [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files and say where they are."""
        on_first_process(self._write)

    def _write(self) -> None:
        for path, lines in self._lines.items():
            write_text(path, "".join(lines))
        scoring: list[Command] = [["caopd", "score", path] for path in self._lines]
        tell([("predictions", path) for path in self._lines], [*scoring, *reporting(self._run)])
        self._lines = {}

    def _file_of(self, task: str, event: Event) -> Path:
        return self._path.with_name(".".join(filter(None, [self._path.stem, task, event.name])) + self._path.suffix)


def _row(completion: ScoredCompletion, task: str, event: Event, index: int) -> dict[str, object]:
    """Return one line; ``index`` counts the completions of the batch, in which every prompt has equally many."""
    verified = completion.verified
    verdict = verified.verdict
    return {
        **({"task": task} if task else {}),
        "event": event.name,
        "prompt_id": completion.example.id,
        **({"sample": index % event.num_samples} if event.num_samples > 1 else {}),
        "category": completion.example.category,
        "question": completion.example.question,
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
