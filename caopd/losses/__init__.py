"""Losses between token distributions: they know no tokenizer, task or method."""

from caopd.losses.chunked import TokenStatistics, chunked_divergence
from caopd.losses.distillation import (
    Denominators,
    DistillationLoss,
    LossOutput,
    Reduction,
    SegmentTotal,
    segment_means,
    segment_totals,
)
from caopd.losses.divergence import Divergence, DivergenceName, token_divergence

__all__ = [
    "Denominators",
    "DistillationLoss",
    "Divergence",
    "DivergenceName",
    "LossOutput",
    "Reduction",
    "SegmentTotal",
    "TokenStatistics",
    "chunked_divergence",
    "segment_means",
    "segment_totals",
    "token_divergence",
]
