"""SFT, supervised fine-tuning: trains on the demonstrations of the data, without rollouts and without a teacher."""

from __future__ import annotations

import random
from dataclasses import dataclass

from caopd.errors import ConfigError, DataError
from caopd.methods.base import Method
from caopd.types import Example, Response, Signal, TeacherContext, TrainSample, VerifiedGroup

_KINDS = ("demonstration", "solution")


@dataclass(frozen=True)
class SFT(Method):
    """Supervised fine-tuning: the completion is the demonstration, which states its confidence.

    A model that is to teach itself must use what its context shows. Large ones do; for a small one, some of the
    demonstrations can be shown in the prompt as a teacher sees them, stating a confidence that the completion repeats.

    Args:
        demonstration_confidence: The confidence that the demonstration states. ``uniform`` is one of 0.00 to 1.00 that
            depends on the example alone: the form is learnt, and no confidence in particular. None trains without a
            confidence segment.
        confidence_weight: Weight of a token of that confidence's segment, where any other has 1. Confidences that are
            drawn teach their form and no more, and their noise is learnt from like all else: a small weight leaves the
            steps to the answers. Where a context is shown, its confidence can be known, and has the weight 1.
        context_share: Share of the prompts that show a context, with a confidence of 0.00 to 1.00 in place of the
            demonstration's. Which ones, and what they state, depends on the example alone.

    Raises:
        ConfigError: The confidence or the share is not in [0, 1], the weight not in (0, 1], or contexts are asked for
            without a confidence.
    """

    demonstration_confidence: float | str | None = 1.0
    confidence_weight: float = 1.0
    context_share: float = 0.0
    signal = Signal.COMPLETION
    min_rollouts = 0

    def __post_init__(self) -> None:
        stated = self.demonstration_confidence
        if stated not in (None, "uniform") and not (isinstance(stated, (int, float)) and 0 <= stated <= 1):
            raise ConfigError(
                "Expected `demonstration_confidence` of SFT to be in [0, 1], `uniform`, or null for none, but got "
                f"{stated!r}: correct `model.method.demonstration_confidence`."
            )
        if not 0 < self.confidence_weight <= 1:
            raise ConfigError(
                f"Expected `confidence_weight` of SFT to be in (0, 1], but got {self.confidence_weight}: correct "
                "`model.method.confidence_weight`."
            )
        if not 0 <= self.context_share <= 1 or (self.context_share and self.demonstration_confidence is None):
            raise ConfigError(
                "Expected `context_share` of SFT to be in [0, 1], and 0 where `demonstration_confidence` is null, but "
                f"got {self.context_share}: a context states a confidence."
            )

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return the demonstration as the only training sample of the prompt."""
        self.check_example(group.example)
        assert group.example.demonstration is not None
        response = Response(group.example.demonstration)
        rng = random.Random(group.example.id)
        shows_context, drawn = rng.random() < self.context_share, rng.randrange(101) / 100
        if not shows_context:
            stated = drawn if isinstance(self.demonstration_confidence, str) else self.demonstration_confidence
            weight = self.confidence_weight if stated is not None else 1.0
            return [TrainSample(group.example, response, None, stated, weight=weight, body_weight=1 / weight)]
        context = TeacherContext(rng.choice(_KINDS), response.text, drawn, empirical=True)
        return [TrainSample(group.example, response, context, drawn, student_sees_context=True)]

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
