"""Callbacks: what a run shows and writes."""

from caopd.callbacks.completions import SampleCompletions
from caopd.callbacks.continual import ContinualReport
from caopd.callbacks.predictions import PredictionWriter
from caopd.callbacks.progress import PhaseProgressBar
from caopd.callbacks.reliability import ReliabilityDiagrams
from caopd.callbacks.report import BeforeAfterReport
from caopd.callbacks.results import ResultTables
from caopd.callbacks.round_statistics import RoundStatistics
from caopd.callbacks.run_config import RunConfig, check_alone
from caopd.callbacks.unlogged import Unlogged

__all__ = [
    "BeforeAfterReport",
    "ContinualReport",
    "PhaseProgressBar",
    "PredictionWriter",
    "ReliabilityDiagrams",
    "ResultTables",
    "RoundStatistics",
    "RunConfig",
    "SampleCompletions",
    "Unlogged",
    "check_alone",
]
