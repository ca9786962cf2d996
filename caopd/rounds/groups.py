"""Samples the groups of a round: the student's rollouts, their verdicts, the teacher's answers, and mu_hat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from caopd.distributed import gather_in_order, together
from caopd.errors import DataError, name_of, user_code
from caopd.methods import Method
from caopd.methods.estimators import Estimator
from caopd.models import LanguageModel
from caopd.rollouts import RolloutRequest, Sampling
from caopd.rounds.completer import Completer
from caopd.rounds.config import RoundConfig
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.prompts import RoundPrompts
from caopd.seeds import derive_seed
from caopd.types import Example, TeacherContext, VerifiedGroup, VerifiedRollout, verdicts_of


@dataclass(frozen=True)
class Policies:
    """The models whose completions are sampled.

    Attributes:
        student: The student, which samples the rollouts.
        teacher: The teacher, which answers with its context where an estimator asks for it; None where there is none.
        version: Number of optimizer steps that their weights have had.
    """

    student: LanguageModel
    teacher: LanguageModel | None
    version: int


@dataclass(frozen=True)
class GroupSampler:
    """Samples the groups of some prompts.

    Attributes:
        completer: Samples completions and verifies them.
        encoder: Makes the token ids of the prompts.
        method: Decides whether student or teacher samples, and what the teacher's context is.
        estimator: Estimates mu_hat from the verdicts.
        round: How many rollouts are sampled.
        sampling: How rollouts are sampled.
    """

    completer: Completer
    encoder: SampleEncoder
    method: Method
    estimator: Estimator
    round: RoundConfig
    sampling: Sampling

    def sample(self, policies: Policies, prompts: RoundPrompts) -> tuple[list[VerifiedGroup], dict[str, float]]:
        """Return one group per prompt, and the results of the parity check; a collective operation.

        Args:
            policies: The student and its teacher.
            prompts: The prompts of this process.
        """
        policy = policies.teacher if self.method.rollouts_of == "teacher" else policies.student
        assert policy is not None
        self.completer.sync(policy, policies.version)
        requests = [
            RolloutRequest(ids, seed)
            for ids, seed in zip(self.encoder.student_prompts(prompts.examples), prompts.seeds, strict=True)
        ]
        first = self._complete(prompts, requests, self.round.smallest_group)
        parity = self.completer.measured
        verified = first if self.round.adaptive is None else self._sample_more(prompts, requests, first)
        rollouts = self.completer.rewarded(self.method.named_rewards, prompts.examples, verified)
        groups = [
            VerifiedGroup(example, request.prompt_ids, group, (None,) * len(group))
            for example, request, group in zip(prompts.examples, requests, rollouts, strict=True)
        ]
        answers = self._teacher_answers(policies, groups, prompts)
        return [estimated(self.estimator, *each) for each in zip(groups, answers, strict=True)], parity

    def sample_taught(
        self,
        policies: Policies,
        groups: Sequence[VerifiedGroup],
        contexts: Sequence[TeacherContext | None],
        prompts: RoundPrompts,
        num_rollouts: int,
    ) -> list[tuple[VerifiedRollout, ...]]:
        """Return the teacher's completions under each group's context; a collective operation.

        Args:
            policies: The models, a teacher among them.
            groups: The groups of this process.
            contexts: The context of each group; None shows the teacher the question alone.
            prompts: The prompts of the groups, with the seeds of the teacher's completions.
            num_rollouts: Number of completions per group.
        """
        assert policies.teacher is not None
        ids = [group.prompt_ids for group in groups]
        known = [(index, context) for index, context in enumerate(contexts) if context is not None]
        shown = [(prompts.examples[index], context) for index, context in known]
        taught = together(lambda: self.encoder.teacher_prompts(shown))
        for (index, _), prompt in zip(known, taught, strict=True):
            ids[index] = prompt
        self.completer.sync(policies.teacher, policies.version)
        requests = [RolloutRequest(prompt, seed) for prompt, seed in zip(ids, prompts.seeds, strict=True)]
        return self._complete(prompts, requests, num_rollouts)

    def _complete(
        self, prompts: RoundPrompts, requests: Sequence[RolloutRequest], num_rollouts: int
    ) -> list[tuple[VerifiedRollout, ...]]:
        return self.completer.complete(prompts.examples, requests, num_rollouts, self.sampling, prompts.verifier)

    def _sample_more(
        self, prompts: RoundPrompts, requests: Sequence[RolloutRequest], first: Sequence[tuple[VerifiedRollout, ...]]
    ) -> list[tuple[VerifiedRollout, ...]]:
        """Sample further batches for the groups that are not certain enough, until all are, or have G rollouts."""
        groups, batch = list(first), self.round.smallest_group
        for number in range(1, self.round.num_rollouts // batch):
            unsure = [index for index, group in enumerate(groups) if self._is_unsure(group)]
            # Generation is collective: every process samples for as many prompts as the one with most, and drops
            # those beyond its own.
            num_sampled = max(gather_in_order([len(unsure)]))
            if num_sampled == 0:
                break
            filler = [index for index in range(len(groups)) if index not in unsure][: num_sampled - len(unsure)]
            sampled = [*unsure, *filler]
            seeded = [replace(requests[i], seed=derive_seed(requests[i].seed, "batch", number)) for i in sampled]
            more = self._complete(prompts.only(sampled), seeded, batch)
            for index, rollouts in zip(unsure, more, strict=False):
                groups[index] += rollouts
        return groups

    def _is_unsure(self, group: Sequence[VerifiedRollout]) -> bool:
        assert self.round.adaptive is not None
        verdicts = verdicts_of(group)
        with user_code(self.estimator, f"{len(verdicts)} verdicts"):
            return not verdicts or self.estimator.deviation(verdicts) > self.round.adaptive.max_deviation

    def _teacher_answers(
        self, policies: Policies, groups: Sequence[VerifiedGroup], prompts: RoundPrompts
    ) -> list[list[str | None]]:
        """Return the teacher's parsed answers to each prompt; none without a context, or where none are asked for."""
        num_rollouts = self.estimator.num_teacher_rollouts
        if num_rollouts == 0 or policies.teacher is None:
            return [[] for _ in groups]
        contexts = together(lambda: [shown_context(self.method, group) for group in groups])
        taught = self.sample_taught(policies, groups, contexts, prompts.reseeded("teacher"), num_rollouts)
        # Generation is collective: without a context the teacher still completes the question, and that is dropped.
        return [
            [] if context is None else [verdict.answer for verdict in verdicts_of(group)]
            for context, group in zip(contexts, taught, strict=True)
        ]


def shown_context(method: Method, group: VerifiedGroup) -> TeacherContext | None:
    """Return the first context that the method shows its teacher before mu_hat is known; None if there is none.

    Args:
        method: The method, which chooses the context.
        group: The group of one prompt.

    Raises:
        UserCodeError: The method raised.
    """
    example: Example = group.example
    with user_code(method, f"example {example.id!r}"):
        rollouts = group.judged.rollouts
        each = (method.teacher_context(example, rollouts, index) for index in range(len(rollouts)))
        return next((context for context in each if context is not None), None)


def estimated(estimator: Estimator, group: VerifiedGroup, answers: Sequence[str | None]) -> VerifiedGroup:
    """Return a group with the mu_hat that the estimator makes of its verdicts; with none where these are too few.

    Args:
        estimator: Estimates mu_hat.
        group: The group, which has no mu_hat yet.
        answers: The teacher's answers, where the estimator asks for them.

    Raises:
        UserCodeError: The estimator raised.
        DataError: It returned something else than success rates.
    """
    verdicts = group.verdicts
    if len(verdicts) < min(max(1, estimator.min_rollouts), len(group.rollouts)):
        return group
    with user_code(estimator, f"example {group.example.id!r}"):
        mu_hats = tuple(estimator.estimate_each(verdicts, answers))
        if len(mu_hats) == len(verdicts) and all(each is None or 0 <= each <= 1 for each in mu_hats):
            known = iter(mu_hats)
            spread = (next(known) if verified.verdict is not None else None for verified in group.rollouts)
            return replace(group, mu_hats=tuple(spread))
    raise DataError(
        f"Expected {name_of(estimator)} to give success rates in [0, 1] of example {group.example.id!r}, one for each "
        f"of its {len(verdicts)} verdicts, but got {mu_hats!r}. Correct it."
    )
