"""Evaluation on held-out prompts: how they are completed, in which batches, and what is measured."""

from caopd.evaluation.batches import EvaluationBatch, EvaluationBatches, EvaluationPass, ScoredCompletion
from caopd.evaluation.config import EvaluationConfig, SampledConfig
from caopd.evaluation.scores import NO_VERDICT, EvaluationScores, Parts, SetScores
from caopd.evaluation.vote import Vote, vote

__all__ = [
    "NO_VERDICT",
    "EvaluationBatch",
    "EvaluationBatches",
    "EvaluationConfig",
    "EvaluationPass",
    "EvaluationScores",
    "Parts",
    "SampledConfig",
    "ScoredCompletion",
    "SetScores",
    "Vote",
    "vote",
]
