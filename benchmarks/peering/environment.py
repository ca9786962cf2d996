"""The environment of TRL, apart from that of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TRL = "trl==1.16.0"


def trl_python(directory: Path, constraints: Path) -> Path:
    """Return the Python of an environment with TRL; it is made if it is not there.

    Args:
        directory: The environment's folder.
        constraints: The versions that the test environment of this package has; TRL's has the same torch.
    """
    python = directory / "bin" / "python"
    done = directory / "trl-is-installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, TRL], check=True)
        done.touch()
    return python
