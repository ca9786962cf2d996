"""Metrics of stated confidence: calibration, ranking and accuracy, with missing confidences kept apart.

Classes accumulate over batches and processes; :mod:`caopd.metrics.functional` holds the same as pure
functions. The classes are imported when they are first asked for: torchmetrics takes seconds and imports
transformers, which the functions need not wait for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from caopd.metrics.bins import ReliabilityBins, reliability_bins
from caopd.metrics.cascade import CascadeCurve, OperatingPoint, cascade_curve

if TYPE_CHECKING:
    from caopd.metrics.brier import BrierScore
    from caopd.metrics.calibration_error import ExpectedCalibrationError
    from caopd.metrics.collection import CalibrationMetrics
    from caopd.metrics.overconfidence import OverconfidenceGap
    from caopd.metrics.pass_at_k import PassAtK
    from caopd.metrics.ranking import StrictPairwiseRanking
    from caopd.metrics.smooth import SmoothCalibrationError

_CLASSES = {
    "BrierScore": "brier",
    "CalibrationMetrics": "collection",
    "ExpectedCalibrationError": "calibration_error",
    "OverconfidenceGap": "overconfidence",
    "PassAtK": "pass_at_k",
    "SmoothCalibrationError": "smooth",
    "StrictPairwiseRanking": "ranking",
}

__all__ = [
    "BrierScore",
    "CalibrationMetrics",
    "CascadeCurve",
    "ExpectedCalibrationError",
    "OperatingPoint",
    "OverconfidenceGap",
    "PassAtK",
    "ReliabilityBins",
    "SmoothCalibrationError",
    "StrictPairwiseRanking",
    "cascade_curve",
    "reliability_bins",
]


def __getattr__(name: str) -> object:
    """Import a class when it is first asked for."""
    if name not in _CLASSES:
        raise AttributeError(f"module 'caopd.metrics' has no attribute {name!r}")
    return vars(import_module(f"caopd.metrics.{_CLASSES[name]}"))[name]
