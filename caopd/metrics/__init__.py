"""Metrics of stated confidence: calibration, ranking and accuracy. A missing confidence is not taken for 0.

:mod:`caopd.metrics.catalogue` lists them, :mod:`caopd.metrics.functional` computes them, and the classes accumulate
over batches and processes. Each name is imported when it is first asked for: the catalogue needs no torch, and the
functions do not wait for torchmetrics, which takes seconds and imports transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caopd.metrics.bins import ReliabilityBins, reliability_bins
    from caopd.metrics.brier import BrierScore
    from caopd.metrics.calibration_error import ExpectedCalibrationError
    from caopd.metrics.catalogue import MetricSpec
    from caopd.metrics.collection import CalibrationMetrics
    from caopd.metrics.cost_curve import CascadeCurve, OperatingPoint, cascade_curve
    from caopd.metrics.debiased import DebiasedCalibrationError
    from caopd.metrics.overconfidence import OverconfidenceGap
    from caopd.metrics.pass_at_k import PassAtK
    from caopd.metrics.ranking import StrictPairwiseRanking
    from caopd.metrics.smooth import SmoothCalibrationError

_MODULES = {
    "BrierScore": "brier",
    "CalibrationMetrics": "collection",
    "CascadeCurve": "cost_curve",
    "DebiasedCalibrationError": "debiased",
    "ExpectedCalibrationError": "calibration_error",
    "MetricSpec": "catalogue",
    "OperatingPoint": "cost_curve",
    "OverconfidenceGap": "overconfidence",
    "PassAtK": "pass_at_k",
    "ReliabilityBins": "bins",
    "SmoothCalibrationError": "smooth",
    "StrictPairwiseRanking": "ranking",
    "cascade_curve": "cost_curve",
    "reliability_bins": "bins",
}

__all__ = [
    "BrierScore",
    "CalibrationMetrics",
    "CascadeCurve",
    "DebiasedCalibrationError",
    "ExpectedCalibrationError",
    "MetricSpec",
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
    """Import what a name stands for when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'caopd.metrics' has no attribute {name!r}")
    return vars(import_module(f"caopd.metrics.{_MODULES[name]}"))[name]


def __dir__() -> list[str]:
    """List every name, imported or not."""
    return sorted({*globals(), *__all__})
