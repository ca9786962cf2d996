"""Metrics of stated confidence: calibration, ranking and accuracy, with missing confidences kept apart.

Classes accumulate over batches and processes; :mod:`caopd.metrics.functional` holds the same as pure
functions.
"""

from caopd.metrics.bins import ReliabilityBins, reliability_bins
from caopd.metrics.brier import BrierScore
from caopd.metrics.calibration_error import ExpectedCalibrationError
from caopd.metrics.collection import CalibrationMetrics
from caopd.metrics.overconfidence import OverconfidenceGap
from caopd.metrics.ranking import StrictPairwiseRanking

__all__ = [
    "BrierScore",
    "CalibrationMetrics",
    "ExpectedCalibrationError",
    "OverconfidenceGap",
    "ReliabilityBins",
    "StrictPairwiseRanking",
    "reliability_bins",
]
