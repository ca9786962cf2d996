"""Settings of an evaluation: how held-out prompts are completed, and of which tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from caopd.errors import ConfigError
from caopd.rollouts import Sampling
from caopd.tasks import Task, check_task_name


@dataclass(frozen=True)
class SampledConfig:
    """Several completions of every held-out prompt, beside the greedy one.

    Attributes:
        num_samples: N, the number of completions per prompt.
        temperature: Divides the logits; above 0, because N greedy completions would all be the same.
        top_p: Smallest set of tokens with at least this probability is kept; 1 keeps all.
    """

    num_samples: int = 16
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ConfigError(
                f"Expected `num_samples` of `data.evaluation.sampled` to be at least 2, but got {self.num_samples}: "
                "one completion is what `data.evaluation.sampling` samples; set `sampled` to null."
            )
        if self.temperature <= 0:
            raise ConfigError(
                f"Expected `temperature` of `data.evaluation.sampled` to be above 0, but got {self.temperature}: "
                f"{self.num_samples} greedy completions are one and the same."
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """How held-out prompts are completed, and of which tasks.

    Attributes:
        sampling: Greedy by default (temperature 0); ``max_new_tokens`` does not follow that of training.
        num_examples: How many of a split's examples are used, the first ones; None uses all.
        batch_size: Prompts completed at once in one process.
        tasks: Further tasks by name, such as those of another distribution: evaluated beside the one that is trained
            on, in ``test`` and ``predict``.
        validate_tasks: Whether they are also evaluated in every validation.
        sampled: Several completions of every prompt as well, in ``test`` and ``predict``; None samples none.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    num_examples: int | None = None
    batch_size: int = 256
    tasks: dict[str, Task] = field(default_factory=dict)
    validate_tasks: bool = False
    sampled: SampledConfig | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"Expected `batch_size` of the evaluation to be at least 1, but got {self.batch_size}.")
        if self.num_examples is not None and self.num_examples < 1:
            raise ConfigError(f"Expected `num_examples` to be at least 1 or null, but got {self.num_examples}.")
        for name in self.tasks:
            check_task_name(name, "data.evaluation.tasks")
        if self.validate_tasks and not self.tasks:
            raise ConfigError(
                "Expected tasks in `data.evaluation.tasks` with `validate_tasks: true`, but there is none: name them "
                "there, or set `validate_tasks` to false."
            )

    @property
    def sampling_of_several(self) -> Sampling:
        """How the several completions are sampled; their length limit is that of the single one."""
        assert self.sampled is not None
        return replace(self.sampling, temperature=self.sampled.temperature, top_p=self.sampled.top_p, top_k=0)
