"""Draws the groups of a round: the student's rollouts, verified and compared, the teacher's answers, mu_hat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from caopd.distributed import gather_in_order
from caopd.errors import DataError, name_of, user_code
from caopd.methods import Method
from caopd.methods.estimators import Estimator
from caopd.models import LanguageModel
from caopd.rollouts import RolloutRequest, Sampling
from caopd.rounds.completer import Completer
from caopd.rounds.config import RoundConfig, shown_context
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.parity import ParityConfig
from caopd.seeds import derive_seed
from caopd.types import Example, VerifiedGroup, VerifiedRollout


@dataclass(frozen=True)
class Policies:
    """Whose completions are drawn.

    Attributes:
        student: Draws the rollouts.
        teacher: Answers with its context, where an estimator asks for it; None where there is none.
        version: Number of optimizer steps behind their weights.
    """

    student: LanguageModel
    teacher: LanguageModel | None
    version: int


@dataclass(frozen=True)
class GroupDrawer:
    """Draws the groups of some prompts.

    Attributes:
        completer: Draws and verifies.
        encoder: Makes the prompts' ids.
        method: Chooses who draws, and the teacher's context.
        estimator: Makes mu_hat of verdicts.
        round: How many rollouts.
        sampling: How rollouts are drawn.
        parity: How closely they are compared with the student.
    """

    completer: Completer
    encoder: SampleEncoder
    method: Method
    estimator: Estimator
    round: RoundConfig
    sampling: Sampling
    parity: ParityConfig

    def draw(
        self, policies: Policies, examples: Sequence[Example], seeds: Sequence[int]
    ) -> tuple[list[VerifiedGroup], dict[str, float]]:
        """Return one group per example, and what the comparison with who drew them showed; a collective operation.

        Args:
            policies: The student and its teacher.
            examples: Rows of this process.
            seeds: Of their groups.
        """
        prompts = self.encoder.student_prompts(examples)
        policy = policies.teacher if self.method.draws == "teacher" else policies.student
        assert policy is not None
        self.completer.sync(policy, policies.version)
        requests = [RolloutRequest(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        first = self.completer.complete(examples, requests, self.round.smallest_group, self.sampling)
        parity = self.completer.compare(policy, requests, first, self.parity)
        rollouts = first if self.round.adaptive is None else self._draw_more(examples, requests, first)
        answers = self._teacher_answers(policies, examples, prompts, rollouts, seeds)
        groups = [
            estimated_group(self.estimator, example, prompt, group, given)
            for example, prompt, group, given in zip(examples, prompts, rollouts, answers, strict=True)
        ]
        return groups, parity

    def _draw_more(
        self,
        examples: Sequence[Example],
        requests: Sequence[RolloutRequest],
        first: Sequence[tuple[VerifiedRollout, ...]],
    ) -> list[tuple[VerifiedRollout, ...]]:
        """Draw further batches for the groups that are not certain enough, until all are or G are drawn."""
        groups, batch = list(first), self.round.smallest_group
        for number in range(1, self.round.num_rollouts // batch):
            unsure = [index for index, group in enumerate(groups) if self._is_unsure(group)]
            # Generation is collective: every process draws for as many prompts as the one with most, and forgets those
            # beyond its own.
            num_drawn = max(gather_in_order([len(unsure)]))
            if num_drawn == 0:
                break
            filler = [index for index in range(len(groups)) if index not in unsure][: num_drawn - len(unsure)]
            drawn = [*unsure, *filler]
            seeded = [replace(requests[i], seed=derive_seed(requests[i].seed, "batch", number)) for i in drawn]
            more = self.completer.complete([examples[i] for i in drawn], seeded, batch, self.sampling)
            for index, rollouts in zip(unsure, more, strict=False):
                groups[index] += rollouts
        return groups

    def _is_unsure(self, group: Sequence[VerifiedRollout]) -> bool:
        assert self.round.adaptive is not None
        return self.estimator.deviation([verified.verdict for verified in group]) > self.round.adaptive.max_deviation

    def draw_taught(
        self, policies: Policies, groups: Sequence[VerifiedGroup], seeds: Sequence[int], num_rollouts: int
    ) -> list[tuple[VerifiedRollout, ...]]:
        """Return completions of the teacher under each group's context, none where it has none; collective.

        Args:
            policies: With a teacher.
            groups: Of this process.
            seeds: Of their completions.
            num_rollouts: Completions per group.
        """
        assert policies.teacher is not None
        examples = [group.example for group in groups]
        contexts = [shown_context(self.method, group) for group in groups]
        # Without a context the teacher still completes the question, and is not listened to: generation is collective.
        prompts = [group.prompt_ids for group in groups]
        known = [
            (index, example, context)
            for index, (example, context) in enumerate(zip(examples, contexts, strict=True))
            if context
        ]
        taught = self.encoder.teacher_prompts([(example, context) for _, example, context in known])
        for (index, _, _), prompt in zip(known, taught, strict=True):
            prompts[index] = prompt
        self.completer.sync(policies.teacher, policies.version)
        requests = [RolloutRequest(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        completed = self.completer.complete(examples, requests, num_rollouts, self.sampling)
        return [() if context is None else group for context, group in zip(contexts, completed, strict=True)]

    def _teacher_answers(
        self,
        policies: Policies,
        examples: Sequence[Example],
        prompts: Sequence[tuple[int, ...]],
        rollouts: Sequence[tuple[VerifiedRollout, ...]],
        seeds: Sequence[int],
    ) -> list[list[str | None]]:
        """Return the teacher's parsed answers per example, none where nothing asks for them."""
        num_rollouts = self.estimator.num_teacher_rollouts
        if num_rollouts == 0 or policies.teacher is None:
            return [[] for _ in examples]
        groups = [VerifiedGroup(*each, mu_hat=None) for each in zip(examples, prompts, rollouts, strict=True)]
        own_seeds = [derive_seed(seed, "teacher") for seed in seeds]
        taught = self.draw_taught(policies, groups, own_seeds, num_rollouts)
        return [[verified.verdict.answer for verified in group] for group in taught]


def estimated_group(
    estimator: Estimator,
    example: Example,
    prompt_ids: tuple[int, ...],
    rollouts: tuple[VerifiedRollout, ...],
    answers: Sequence[str | None],
) -> VerifiedGroup:
    """Return a group with what the estimator makes of its verdicts.

    Args:
        estimator: Makes mu_hat.
        example: The prompt's row.
        prompt_ids: Its prompt.
        rollouts: Of the prompt.
        answers: Of the teacher, where the estimator asks for them.

    Raises:
        UserCodeError: The estimator raised.
        DataError: It gave no success rates.
    """
    verdicts = [verified.verdict for verified in rollouts]
    with user_code(estimator, f"example {example.id!r}"):
        mu_hat, mu_hats = estimator.estimate(verdicts, answers), tuple(estimator.estimate_each(verdicts))
        known = [each for each in (mu_hat, *mu_hats) if each is not None]
        if len(mu_hats) in (0, len(rollouts)) and all(0 <= each <= 1 for each in known):
            return VerifiedGroup(example, prompt_ids, rollouts, mu_hat, mu_hats)
    raise DataError(
        f"Expected {name_of(estimator)} to give success rates in [0, 1] of example {example.id!r}, one for the group "
        f"and none or {len(rollouts)} for its rollouts, but got {mu_hat!r} and {mu_hats!r}. Correct it."
    )
