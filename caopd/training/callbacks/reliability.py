"""Shows a reliability diagram of every validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer

from caopd.distributed import on_first_process
from caopd.plots import reliability_diagram
from caopd.run_directory import run_directory
from caopd.training.callbacks.media import log_figure
from caopd.training.module import DistillationModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReliabilityDiagrams(Callback):
    """Plots ``val/reliability`` from the validation's bins, before training and after every validation.

    TensorBoard and W&B show it; for other loggers it is a file under ``reliability/`` of the run directory.
    """

    def __init__(self) -> None:
        self._directory = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run directory; a collective operation, so that every process must ask."""
        self._directory = run_directory(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plot the diagram; every process takes part in gathering, and process 0 plots."""
        if not isinstance(pl_module, DistillationModule):
            return
        values = pl_module.validation_metrics.compute()
        bins = pl_module.validation_metrics.bins()
        if bins.n_completions:
            title, spr, ocg = f"validation, step {trainer.global_step}", float(values["spr"]), float(values["ocg"])

            def plot() -> Figure:
                return reliability_diagram(bins, title=title, spr=spr, ocg=ocg)

            on_first_process(lambda: log_figure(trainer, self._directory, "reliability", plot))
