"""What is read of a finished stage: that it has left what the next one needs."""

from __future__ import annotations

from pathlib import Path

from caopd.types import GREEDY
from fits import checkpoint_of
from reckoning.results import TRAINED, predictions_of


def checkpointed(folder: Path) -> dict:
    """Return the last checkpoint of a fit that measured nothing.

    Raises:
        RunFailedError: It has none.
    """
    return {"checkpoint": str(checkpoint_of(folder))}


def exported(folder: Path) -> dict:
    """Return the model directory that an export has written.

    Raises:
        OSError: There is none.
    """
    weights = next(folder.rglob("*.safetensors"), None)
    if weights is None:
        raise FileNotFoundError(f"Expected safetensors below {folder}, but there are none.")
    return {"model": str(weights.parent)}


def predicted(folder: Path) -> dict:
    """Return nothing but a look: the result of a prediction is its files.

    Raises:
        OSError: They are not there.
    """
    predictions_of(folder, TRAINED, GREEDY)
    return {}
