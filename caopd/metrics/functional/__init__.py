"""Pure functions that compute the metrics: tensors in, tensors out, no state."""

from caopd.metrics.functional.brier import MurphyDecomposition, brier_score, murphy_decomposition
from caopd.metrics.functional.calibration_error import (
    adaptive_calibration_error,
    debiased_calibration_error,
    expected_calibration_error,
    unique_value_calibration_error,
)
from caopd.metrics.functional.certainty import CalibrationCertainty, calibration_certainty
from caopd.metrics.functional.means import accuracy, mean_confidence, overconfidence_gap
from caopd.metrics.functional.pass_at_k import pass_at_k
from caopd.metrics.functional.ranking import auroc, strict_pairwise_ranking, tie_rate
from caopd.metrics.functional.selective import (
    RiskCoverageCurve,
    area_under_risk_coverage,
    risk_coverage_curve,
    selective_accuracy,
)
from caopd.metrics.functional.smooth import smooth_calibration_error

__all__ = [
    "CalibrationCertainty",
    "MurphyDecomposition",
    "RiskCoverageCurve",
    "accuracy",
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "auroc",
    "brier_score",
    "calibration_certainty",
    "debiased_calibration_error",
    "expected_calibration_error",
    "mean_confidence",
    "murphy_decomposition",
    "overconfidence_gap",
    "pass_at_k",
    "risk_coverage_curve",
    "selective_accuracy",
    "smooth_calibration_error",
    "strict_pairwise_ranking",
    "tie_rate",
    "unique_value_calibration_error",
]
