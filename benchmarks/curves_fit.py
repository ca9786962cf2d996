"""One run for ``benchmarks/curves.py``: ``python benchmarks/curves_fit.py RUN`` and the options of ``caopd fit``.

It is the command itself, with a callback that times the steps; what the libraries take is looked at before it begins.
"""

from __future__ import annotations

import sys

from caopd.cli import main
from caopd.commands.plan.memory import LOADED_LATER
from curving.cost import StepCost
from peering.clock import MIB, high_water


def run(folder: str, options: list[str]) -> int:
    """Fit, and leave what the steps cost in the folder; return the exit status."""
    libraries = high_water() + LOADED_LATER / MIB
    callback = f"{StepCost.__module__}.{StepCost.__name__}"
    timing = [f"--trainer.callbacks+={callback}", f"--trainer.callbacks.file={folder}/cost.json"]
    timing.append(f"--trainer.callbacks.libraries_mib={libraries}")
    return main(["fit", *options, f"--trainer.default_root_dir={folder}", *timing])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
