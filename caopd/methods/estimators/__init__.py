"""Estimators of the empirical confidence mu_hat from the rollouts of one group. No torch here."""

from caopd.methods.estimators.base import Estimator
from caopd.methods.estimators.empirical_bayes import EmpiricalBayes
from caopd.methods.estimators.monte_carlo import LeaveOneOut, MonteCarlo
from caopd.methods.estimators.self_consistency import SelfConsistency, majority_answer
from caopd.methods.estimators.shrinkage import Shrinkage

__all__ = [
    "EmpiricalBayes",
    "Estimator",
    "LeaveOneOut",
    "MonteCarlo",
    "SelfConsistency",
    "Shrinkage",
    "majority_answer",
]
