"""What a run does with optimizer steps whose numbers are not finite, and how many it has left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from caopd.errors import ConfigError

LeftOutBy = Literal["setting", "scaler"]


@dataclass(frozen=True)
class NonFinite:
    """What becomes of an optimizer step whose loss or gradient is NaN or infinite.

    Weights that are not finite after a step stop the run always.

    Attributes:
        action: ``stop`` ends the run with an error; ``skip`` leaves the step out: no weight changes, nor anything that
            the optimizer keeps, nor the teacher. Only its number and the schedule of the learning rate go on.
        limit: Number of steps of a run that ``skip`` leaves out; one more is an error.

    Raises:
        ConfigError: ``limit`` is below 1.
    """

    action: Literal["stop", "skip"] = "stop"
    limit: int = 10

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(
                f"Expected `limit` of `model.nonfinite` to be at least 1, but got {self.limit}: to leave out no step, "
                "set `action: stop`."
            )


@dataclass(frozen=True)
class LeftOut:
    """How many optimizer steps of a run have been left out.

    Attributes:
        by_setting: Since ``skip`` is set.
        by_scaler: By the scaler of 16-bit floats.
        by_scaler_in_a_row: The last of these, since a step was made.
    """

    by_setting: int = 0
    by_scaler: int = 0
    by_scaler_in_a_row: int = 0

    @property
    def num_steps(self) -> int:
        """All of them."""
        return self.by_setting + self.by_scaler

    def after(self, step: LeftOutBy | None) -> LeftOut:
        """Return the numbers after one more step.

        Args:
            step: What left it out; None where it was made.
        """
        if step is None:
            return replace(self, by_scaler_in_a_row=0)
        if step == "setting":
            return replace(self, by_setting=self.by_setting + 1)
        return replace(self, by_scaler=self.by_scaler + 1, by_scaler_in_a_row=self.by_scaler_in_a_row + 1)
