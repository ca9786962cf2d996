"""The base of all training methods, which turn a verified group into training samples. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from caopd.types import Example, Signal, TeacherContext, TrainSample, VerifiedGroup, VerifiedRollout


class Method(ABC):
    """Turns the G rollouts of one prompt into training samples."""

    # These have no annotations: jsonargparse would look their names up in the modules of the subclasses.
    signal = Signal.CONTEXT
    """What the method's training samples are trained on; it decides which loss goes with them."""
    revises = False
    """Whether training samples state another confidence than their rollout did, so that nobody has sampled them."""
    privileged = True
    """Whether a teacher sees more than the student; if it does, it may be the student itself."""
    rollouts_of = "student"
    """Whose completions are trained on, ``student`` or ``teacher``."""
    min_rollouts: int = 1
    """Smallest G that the method can work with; 0 means that it trains without rollouts, and none are sampled."""

    @property
    def named_rewards(self) -> Mapping[str, Callable[[Example, VerifiedRollout], float]]:
        """What every rollout earns when it is verified (``VerifiedRollout.rewards``), by name; by default nothing."""
        return {}

    @abstractmethod
    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return one training sample per rollout, in the order of the rollouts; one for a prompt without rollouts.

        Args:
            group: The rollouts of one prompt, with their verdicts, the confidences read from them, and mu_hat. All of
                them have a verdict, and there are at least ``min_rollouts``: the others are left out before.
        """

    def statistics(self, samples: Sequence[TrainSample]) -> dict[str, float]:
        """Return numbers whose means over the groups of a round are logged under ``rollout/``.

        Args:
            samples: What :meth:`train_samples` made of one group.
        """
        return {}

    def teacher_context(
        self, example: Example, rollouts: Sequence[VerifiedRollout], index: int
    ) -> TeacherContext | None:
        """Return what the teacher sees for ``rollouts[index]``; None where it sees what the student sees.

        Args:
            example: The prompt's row.
            rollouts: The whole group.
            index: Which rollout is trained on.
        """
        return None

    @abstractmethod
    def check_example(self, example: Example) -> None:
        """Raise if the method cannot use ``example``; called for every training row before the first rollout.

        Raises:
            DataError: The row lacks what the method needs.
        """

    @abstractmethod
    def known_context(self, example: Example) -> TeacherContext | None:
        """Return the context that is known before any rollout; None if it depends on rollouts, or there is none.

        Args:
            example: The prompt's row.
        """


class Distillation(Method):
    """On-policy distillation from a teacher with privileged context: SDFT, SDPO and what wraps them.

    Subclasses choose the context that the teacher sees; everything else is the same.
    """

    @abstractmethod
    def teacher_context(
        self, example: Example, rollouts: Sequence[VerifiedRollout], index: int
    ) -> TeacherContext | None:
        """Return what the teacher sees for ``rollouts[index]``, None if there is nothing to show.

        Args:
            example: The prompt's row.
            rollouts: The whole group.
            index: Which rollout is trained on.
        """

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return every rollout as it was sampled, with its teacher's context; its weight is 0 where there is none."""
        samples = []
        for index, rollout in enumerate(group.rollouts):
            context = self.teacher_context(group.example, group.rollouts, index)
            weight = 0.0 if context is None else 1.0
            samples.append(TrainSample(group.example, rollout, context, weight=weight))
        return samples
