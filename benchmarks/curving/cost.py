"""What the steps of a fit cost, as a callback of its trainer."""

from __future__ import annotations

from pathlib import Path

from lightning import LightningModule, Trainer

import caopd.training.subcommands  # noqa: F401 (so that it counts as a library)
from peering.clock import StepClock, high_water
from peers_ours import Timing


class StepCost(Timing):
    """Writes the CPU seconds of every step but the first, and the peak of the resident set beyond the libraries.

    Args:
        file: Written when training ends.
        libraries_mib: What interpreter and libraries take in MiB.
    """

    def __init__(self, file: str, libraries_mib: float) -> None:
        super().__init__(StepClock("cpu"))
        self.file = Path(file)
        self.libraries_mib = libraries_mib

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        memory = high_water() - self.libraries_mib
        self.clock.write(self.file, memory_mib=memory, libraries_mib=self.libraries_mib)
