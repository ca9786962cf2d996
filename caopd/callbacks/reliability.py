"""Shows a reliability diagram of every validation in TensorBoard."""

from __future__ import annotations

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from caopd.module import DistillationModule
from caopd.plots import reliability_diagram


class ReliabilityDiagrams(Callback):
    """Draws ``val/reliability`` from the validation's bins, before training and after every validation."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the diagram; every process takes part in gathering, the first one draws."""
        if not isinstance(pl_module, DistillationModule):
            return
        values = pl_module.validation_metrics.compute()
        bins = pl_module.validation_metrics.bins()
        for logger in trainer.loggers:
            if trainer.is_global_zero and bins.n_completions and isinstance(logger, TensorBoardLogger):
                figure = reliability_diagram(
                    bins,
                    title=f"validation, step {trainer.global_step}",
                    spr=float(values["spr"]),
                    ocg=float(values["ocg"]),
                )
                logger.experiment.add_figure("val/reliability", figure, trainer.global_step)
