"""Evaluation on held-out prompts: how they are completed, in which batches, and what is measured."""

from caopd.evaluation.batches import (
    EvaluationBatch,
    EvaluationBatches,
    EvaluationPass,
    EventCompletions,
    ScoredCompletion,
)
from caopd.evaluation.config import EvaluationConfig
from caopd.evaluation.events import Event
from caopd.evaluation.part import PartScores
from caopd.evaluation.scores import NO_VERDICT, EvaluationScores, EventScores, Parts, SetScores
from caopd.evaluation.vote import Vote, vote

__all__ = [
    "NO_VERDICT",
    "EvaluationBatch",
    "EvaluationBatches",
    "EvaluationConfig",
    "EvaluationPass",
    "EvaluationScores",
    "Event",
    "EventCompletions",
    "EventScores",
    "PartScores",
    "Parts",
    "ScoredCompletion",
    "SetScores",
    "Vote",
    "vote",
]
