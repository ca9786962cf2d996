"""Shows a reliability diagram of every validation and event."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer

from caopd.distributed import on_first_process
from caopd.evaluation import PartScores
from caopd.plots import reliability_diagram
from caopd.run_directory import run_directory
from caopd.training.callbacks.media import log_figure
from caopd.training.module import DistillationModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReliabilityDiagrams(Callback):
    """Plots ``val/greedy/reliability`` and ``val/sampled/reliability`` of a validation, titled with the event.

    Both say how certain the ECE is, and are plotted before training and after every validation. TensorBoard and W&B
    show them; for other loggers they are files under ``greedy/reliability/`` and ``sampled/reliability/`` of the run
    directory.
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
        for event, scores in pl_module.validation_scores.in_domain.events.items():
            self._show(trainer, event, scores.part)

    def _show(self, trainer: Trainer, event: str, part: PartScores) -> None:
        values, bins, certainty = part.compute(), part.bins(), part.certainty()
        if bins.n_completions:
            title = f"validation, {event} completions, step {trainer.global_step}"

            def plot() -> Figure:
                return reliability_diagram(bins, title=title, spr=values["spr"], ocg=values["ocg"], certainty=certainty)

            on_first_process(lambda: log_figure(trainer, self._directory, f"{event}/reliability", plot))
