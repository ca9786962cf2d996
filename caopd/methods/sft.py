"""SFT: train on the data's demonstration, without rollouts and without a teacher."""

from __future__ import annotations

from dataclasses import dataclass

from caopd.errors import ConfigError, DataError
from caopd.methods.base import Method
from caopd.types import Example, Response, Signal, TeacherContext, TrainSample, VerifiedGroup


@dataclass(frozen=True)
class SFT(Method):
    """Supervised fine-tuning: the completion is the demonstration, which states its confidence.

    Args:
        demonstration_confidence: What the demonstration states; None trains without a confidence segment.

    Raises:
        ConfigError: If the confidence is not in [0, 1].
    """

    demonstration_confidence: float | None = 1.0
    signal = Signal.COMPLETION
    min_rollouts = 0

    def __post_init__(self) -> None:
        if self.demonstration_confidence is not None and not 0 <= self.demonstration_confidence <= 1:
            raise ConfigError(
                "Expected `demonstration_confidence` of SFT to be in [0, 1], or null for none, but got "
                f"{self.demonstration_confidence}."
            )

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return the demonstration as the one sample of the prompt."""
        self.check_example(group.example)
        assert group.example.demonstration is not None
        response = Response(group.example.demonstration)
        return [TrainSample(group.example, response, context=None, confidence=self.demonstration_confidence)]

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return None: there is no teacher."""
        return None

    def check_example(self, example: Example) -> None:
        """Raise if the row has no demonstration.

        Raises:
            DataError: The demonstration is missing or blank.
        """
        if example.demonstration is None or not example.demonstration.strip():
            raise DataError(
                f"Expected example {example.id!r} to have a demonstration, but it has none: SFT trains on nothing "
                "else. Add a demonstration to the row, or let the task build one from the answer."
            )
