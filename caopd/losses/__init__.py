"""Training losses from hidden states and heads: they know no tokenizer, task or method."""

from caopd.losses.base import (
    Denominators,
    LossOutput,
    Reduction,
    SegmentTotal,
    TokenStreams,
    TrainingLoss,
)
from caopd.losses.blocks import ModelOutput
from caopd.losses.chunked import TokenStatistics, chunked_divergence
from caopd.losses.cross_entropy import CrossEntropyLoss
from caopd.losses.distillation import DistillationLoss, segment_totals
from caopd.losses.divergence import Divergence, DivergenceName, token_divergence
from caopd.losses.importance import ImportanceSampling
from caopd.losses.policy_gradient import PolicyGradientLoss
from caopd.losses.vopd import VOPDLoss

LOSSES: dict[str, type[TrainingLoss]] = {
    loss.signal: loss for loss in (DistillationLoss, PolicyGradientLoss, CrossEntropyLoss)
}
"""What samples are trained on by default, by the signal that they carry."""

__all__ = [
    "LOSSES",
    "CrossEntropyLoss",
    "Denominators",
    "DistillationLoss",
    "Divergence",
    "DivergenceName",
    "ImportanceSampling",
    "LossOutput",
    "ModelOutput",
    "PolicyGradientLoss",
    "Reduction",
    "SegmentTotal",
    "TokenStatistics",
    "TokenStreams",
    "TrainingLoss",
    "VOPDLoss",
    "chunked_divergence",
    "segment_totals",
    "token_divergence",
]
