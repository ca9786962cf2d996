"""Completes the held-out prompts of every evaluated task with the student, as each event asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from caopd.evaluation import EvaluationConfig, EvaluationPass, Event
from caopd.models import LanguageModel
from caopd.rollouts import RolloutRequest
from caopd.rounds.completer import Completer
from caopd.rounds.encoding import SampleEncoder
from caopd.seeds import derive_seed
from caopd.tasks import Stage, examples_of, verifier_of
from caopd.types import Example, VerifiedRollout
from caopd.verifiers import Verifier


@dataclass(frozen=True)
class HeldOut:
    """One task's held-out prompts.

    Attributes:
        name: Name of the task; empty where a single task is trained on and this is it.
        in_domain: Whether the task is trained on.
        examples: The examples of the split.
        verifier: The task's verifier.
    """

    name: str
    in_domain: bool
    examples: Sequence[Example]
    verifier: Verifier


def load_held_out(stages: Sequence[Stage], config: EvaluationConfig, split: str) -> list[HeldOut]:
    """Read a split of every task that is evaluated on it: those that are trained on, then the further ones.

    Args:
        stages: The tasks that are trained on.
        config: Names the further tasks, and says how many examples are used.
        split: ``validation`` or ``test``.
    """
    tasks = [(stage.name, True, stage.task) for stage in stages]
    if split == "test" or config.validate_tasks:
        tasks += [(name, False, task) for name, task in config.tasks.items()]
    return [
        HeldOut(name, in_domain, examples_of(task, split)[: config.num_examples], verifier_of(task))
        for name, in_domain, task in tasks
    ]


@dataclass(frozen=True)
class HeldOutSampler:
    """Completes held-out prompts as they are asked for.

    Attributes:
        completer: Samples completions and verifies them.
        encoder: Makes the token ids of the prompts.
        policy: The model that is evaluated, the student.
        version: A function that returns the number of optimizer steps that its weights have had.
        seed: The seeds of completions are derived from it, the event's name and the examples' ids.
    """

    completer: Completer
    encoder: SampleEncoder
    policy: LanguageModel
    version: Callable[[], int]
    seed: tuple[object, ...]

    def passes(self, held_out: Sequence[HeldOut], events: Sequence[Event]) -> list[EvaluationPass]:
        """Return a pass over each task's prompts.

        Args:
            held_out: The prompts of every task.
            events: The events that every prompt is completed for.
        """
        return [self._pass(prompts, events) for prompts in held_out]

    def _pass(self, held_out: HeldOut, events: Sequence[Event]) -> EvaluationPass:
        def complete(examples: Sequence[Example], event: Event) -> list[tuple[VerifiedRollout, ...]]:
            self.completer.sync(self.policy, self.version())
            requests = [
                RolloutRequest(prompt, derive_seed(*self.seed, event.name, example.id))
                for prompt, example in zip(self.encoder.student_prompts(examples), examples, strict=True)
            ]
            return self.completer.complete(examples, requests, event.num_samples, event.sampling, held_out.verifier)

        return EvaluationPass(held_out.examples, complete, events, held_out.name, held_out.in_domain)
