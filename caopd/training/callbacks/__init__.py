"""Callbacks, which show, log and write what a run measures."""

from caopd.training.callbacks.before_after import BeforeAfterMetrics
from caopd.training.callbacks.completions import SampleCompletions
from caopd.training.callbacks.judged_step import JudgedStep
from caopd.training.callbacks.peer_watch import PeerWatch
from caopd.training.callbacks.predictions import PredictionWriter
from caopd.training.callbacks.preemption import Preemption, requeued
from caopd.training.callbacks.progress import PhaseProgressBar
from caopd.training.callbacks.reliability import ReliabilityDiagrams
from caopd.training.callbacks.results import ResultTables
from caopd.training.callbacks.resume_command import ResumeCommand
from caopd.training.callbacks.round_statistics import RoundStatistics
from caopd.training.callbacks.run_config import RunConfig, check_alone
from caopd.training.callbacks.run_curves import RunCurves
from caopd.training.callbacks.stages import StageMetrics
from caopd.training.callbacks.unlogged import Unlogged

__all__ = [
    "BeforeAfterMetrics",
    "JudgedStep",
    "PeerWatch",
    "PhaseProgressBar",
    "PredictionWriter",
    "Preemption",
    "ReliabilityDiagrams",
    "ResultTables",
    "ResumeCommand",
    "RoundStatistics",
    "RunConfig",
    "RunCurves",
    "SampleCompletions",
    "StageMetrics",
    "Unlogged",
    "check_alone",
    "requeued",
]
