"""Training losses, computed from hidden states and output heads. They know no tokenizer, task or method."""

from caopd.losses.base import (
    Denominators,
    LossInputs,
    LossOutput,
    Reduction,
    SegmentTotal,
    TrainingLoss,
)
from caopd.losses.chunks import Chunk, ModelOutput, Objective, Part, TokenTerm, chunk_tokens, chunked_loss
from caopd.losses.cross_entropy import CrossEntropyLoss
from caopd.losses.distillation import DistillationLoss, chunked_divergence
from caopd.losses.divergences import JSD, Divergence, ForwardKL, ReverseKL
from caopd.losses.importance import ImportanceSampling
from caopd.losses.policy_gradient import PolicyGradientLoss
from caopd.losses.statistics import TokenStatistics, segment_totals
from caopd.losses.top_k import TopK
from caopd.losses.vopd import VOPDLoss

LOSSES: dict[str, type[TrainingLoss]] = {
    loss.signal: loss for loss in (DistillationLoss, PolicyGradientLoss, CrossEntropyLoss)
}
"""The default loss of each signal, which a method's training samples carry."""

__all__ = [
    "JSD",
    "LOSSES",
    "Chunk",
    "CrossEntropyLoss",
    "Denominators",
    "DistillationLoss",
    "Divergence",
    "ForwardKL",
    "ImportanceSampling",
    "LossInputs",
    "LossOutput",
    "ModelOutput",
    "Objective",
    "Part",
    "PolicyGradientLoss",
    "Reduction",
    "ReverseKL",
    "SegmentTotal",
    "TokenStatistics",
    "TokenTerm",
    "TopK",
    "TrainingLoss",
    "VOPDLoss",
    "chunk_tokens",
    "chunked_divergence",
    "chunked_loss",
    "segment_totals",
]
