"""Settings of an evaluation: which completions of held-out prompts are judged, and of which tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from caopd.errors import ConfigError
from caopd.evaluation.events import Event
from caopd.rollouts import Sampling
from caopd.tasks import Task, check_task_name
from caopd.types import GREEDY, SAMPLED


@dataclass(frozen=True)
class EvaluationConfig:
    """Which completions of held-out prompts are judged, and of which tasks.

    Two events are measured: that the *greedy* completion is right, and that one is right which is *sampled* as training
    rollouts are. mu_hat estimates the second.

    Attributes:
        num_samples: Sampled completions of every prompt. Several also give pass@k and a vote; 0 leaves the greedy event
            alone.
        max_new_tokens: Length of the longest completion; None is that of training rollouts.
        num_examples: How many of a split's examples are used, the first ones; None uses all.
        batch_size: Prompts completed at once in one process.
        tasks: Further tasks by name, such as those of another distribution: evaluated beside the one that is trained
            on, in ``test`` and ``predict``.
        validate_tasks: Whether they are also evaluated in every validation.
    """

    num_samples: int = 1
    max_new_tokens: int | None = None
    num_examples: int | None = None
    batch_size: int = 256
    tasks: dict[str, Task] = field(default_factory=dict)
    validate_tasks: bool = False

    def __post_init__(self) -> None:
        if self.num_samples < 0:
            raise ConfigError(
                f"Expected `num_samples` of the evaluation, the sampled completions of every prompt, to be at least 1, "
                f"or 0 for the greedy ones alone, but got {self.num_samples}."
            )
        if self.batch_size < 1:
            raise ConfigError(f"Expected `batch_size` of the evaluation to be at least 1, but got {self.batch_size}.")
        for name in ("num_examples", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Expected `{name}` of the evaluation to be at least 1 or null, but got {value}.")
        for name in self.tasks:
            check_task_name(name, "data.evaluation.tasks")
        if self.validate_tasks and not self.tasks:
            raise ConfigError(
                "Expected tasks in `data.evaluation.tasks` with `validate_tasks: true`, but there is none: name them "
                "there, or set `validate_tasks` to false."
            )

    def events(self, rollouts: Sampling) -> tuple[Event, ...]:
        """Return the events that are measured, the greedy one first.

        Args:
            rollouts: How training rollouts are sampled.

        Raises:
            ConfigError: Rollouts are greedy, so that no sampled event is left.
        """
        length = rollouts.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens
        greedy = Event(GREEDY, Sampling(temperature=0.0, max_new_tokens=length))
        if self.num_samples == 0:
            return (greedy,)
        if rollouts.temperature == 0:
            raise ConfigError(
                "Expected `temperature` of `data.sampling` to be above 0, since held-out prompts are completed with it "
                "too, beside the greedy completions, but got 0. Raise it, or set `data.evaluation.num_samples` to 0."
            )
        return greedy, Event(SAMPLED, replace(rollouts, max_new_tokens=length), self.num_samples)
