"""The defaults of the command line, for runs from Python as well."""

from __future__ import annotations

from typing import Any

from lightning import Callback

from caopd.training.callbacks import (
    BeforeAfterMetrics,
    JudgedStep,
    PeerWatch,
    PhaseProgressBar,
    PredictionWriter,
    Preemption,
    ReliabilityDiagrams,
    ResultTables,
    RoundStatistics,
    SampleCompletions,
    StageMetrics,
)

TRAINER_DEFAULTS: dict[str, Any] = {
    "reload_dataloaders_every_n_epochs": 1,
    "num_sanity_val_steps": -1,
    "log_every_n_steps": 1,
    "gradient_clip_val": 1.0,
}
"""One round per epoch, the whole validation split before the first step, and gradients clipped as in SDFT and SDPO."""

DEFAULT_CALLBACKS: dict[str, type[Callback]] = {
    "peers": PeerWatch,
    "judged_step": JudgedStep,
    "reliability": ReliabilityDiagrams,
    "completions": SampleCompletions,
    "statistics": RoundStatistics,
    "before_after": BeforeAfterMetrics,
    "stages": StageMetrics,
    "results": ResultTables,
    "predictions": PredictionWriter,
    "preemption": Preemption,
}
"""Key in a config -> a callback that every run has."""


def default_callbacks(progress_bar: bool = True) -> list[Callback]:
    """Return new instances of the callbacks that a run of the command line has, with their default settings.

    They write metrics, tables and figures into the run directory, and log every round. ``config.yaml`` is not among
    these files: it holds what a config file and the command line have set, and here a script sets it.

    Args:
        progress_bar: Whether the bar that names the phases of a round is among them, in place of Lightning's. Turn it
            off where the Trainer has ``enable_progress_bar=False``, or a bar of your own.

    Example:
        >>> [type(callback).__name__ for callback in default_callbacks(progress_bar=False)][:2]
        ['PeerWatch', 'JudgedStep']
    """
    callbacks = [callback() for callback in DEFAULT_CALLBACKS.values()]
    return [*callbacks, PhaseProgressBar()] if progress_bar else callbacks
