"""Samples completions with given weights and verifies them, for training, evaluation and the teacher alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from caopd.confidence import ConfidenceFormat
from caopd.distributed import together
from caopd.errors import RolloutError, UnansweredError, name_of
from caopd.models.language_model import LanguageModel
from caopd.rollouts import RolloutEngine, RolloutRequest, Sampling
from caopd.rollouts.declared_marks import declared_marks
from caopd.rollouts.decoding import opens_thought
from caopd.rollouts.progress import progress_to
from caopd.rounds.parity import ParityConfig, check_parity
from caopd.rounds.phases import PhaseClock
from caopd.types import Example, Rollout, VerifiedRollout
from caopd.verifiers import Verifier
from caopd.verifiers.time_limit import TimeLimit
from caopd.verifiers.verification import Verification

Rewards = Mapping[str, Callable[[Example, VerifiedRollout], float]]
"""Rewards of verified rollouts by name, as a method has them."""


class Completer:
    """Samples completions with an engine, reads their confidence, has them verified, and times all of this.

    Args:
        engine: The engine that samples; already started.
        tokenizer: Tells whether a prompt ends with the opening of a thought, and which marks its template declares.
        confidence_format: Reads the stated confidence.
        clock: Times the phases of a round.
        precision: Lightning's precision, so that the model computes as it does in training.
        limit: Calls the verifier; None calls it in this process, without a limit of time.
        parity: How many completions are compared with the model, and how large a difference is an error.

    Attributes:
        measured: What the last comparison with the model measured; empty before the first.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        confidence_format: ConfidenceFormat,
        clock: PhaseClock,
        precision: Callable[[], AbstractContextManager[None]],
        limit: TimeLimit | None = None,
        parity: ParityConfig = ParityConfig(),
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._confidence_format = confidence_format
        self._clock = clock
        self._precision = precision
        self._limit = limit or TimeLimit()
        self._parity = parity
        self._policy: LanguageModel | None = None
        self._version = -1
        self._compared: set[Sampling] = set()
        self.measured: dict[str, float] = {}

    def sync(self, policy: LanguageModel, version: int) -> None:
        """Hand the policy's current weights to the engine.

        Args:
            policy: The model whose weights are handed over.
            version: Number of optimizer steps that these weights have had.
        """
        with self._clock("sync"):
            self._engine.sync(policy, version)
        if policy is not self._policy or version != self._version:
            self._compared.clear()
        self._policy, self._version = policy, version

    def complete(
        self,
        examples: Sequence[Example],
        requests: Sequence[RolloutRequest],
        num_rollouts: int,
        sampling: Sampling,
        verifier: Verifier,
    ) -> list[tuple[VerifiedRollout, ...]]:
        """Sample ``num_rollouts`` completions per request and verify each against its example.

        The first completions of given weights and settings of sampling are compared with the model that should have
        sampled them; see :mod:`caopd.rounds.parity`.

        Args:
            examples: The rows of the prompts.
            requests: The rows' prompts as token ids, and the seeds of their groups.
            num_rollouts: G, the number of completions per prompt.
            sampling: Temperature, top-p, top-k and length limit.
            verifier: The verifier of the examples' task.

        Raises:
            RolloutError: The engine sampled with other weights than those of the last sync, returned something else
                than ``num_rollouts`` rollouts of each request, or drew them from another distribution.
            PeerError: The engine or the verifier has failed in another process.
        """
        with self._clock("rollout"), self._precision(), progress_to(self._clock.on_progress):
            groups = together(lambda: self._engine.generate(requests, num_rollouts, sampling))
        marks = declared_marks(self._tokenizer)
        verification = Verification(verifier, self._confidence_format, self._limit, marks)

        def verified() -> list[tuple[VerifiedRollout, ...]]:
            check_groups(groups, len(requests), num_rollouts, name_of(self._engine))
            check_versions(groups, self._version)
            begun = [opens_thought(self._tokenizer, request.prompt_ids) for request in requests]
            every = verification.each(
                [
                    (rollout, example, thinks)
                    for example, group, thinks in zip(examples, groups, begun, strict=True)
                    for rollout in group
                ]
            )
            return [tuple(every[start : start + num_rollouts]) for start in range(0, len(every), num_rollouts)]

        with self._clock("verify"):
            found = together(verified)  # what comes next may be a sharded model's forward pass, which is collective
            self._compare([request.prompt_ids for request in requests], groups, sampling)
        return found

    def _compare(
        self, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Rollout]], sampling: Sampling
    ) -> None:
        """Compare some completions with the model, if these are the first of its weights and settings."""
        if sampling in self._compared:
            return
        assert self._policy is not None
        with self._precision():
            rounding = self._engine.rounding
            self.measured = check_parity(self._policy, prompts, groups, sampling, self._parity, rounding)
        self._compared.add(sampling)

    def rewarded(
        self, rewards: Rewards, examples: Sequence[Example], groups: Sequence[tuple[VerifiedRollout, ...]]
    ) -> Sequence[tuple[VerifiedRollout, ...]]:
        """Return the groups with what each rollout earns; one that a reward does not return for loses its verdict.

        Rewards are asked here, in the one process that has the rollout: a limit of time that is met in one process and
        not in another would give them other rounds.

        Args:
            rewards: The rewards by name; where there are none, nothing changes.
            examples: The row of each group.
            groups: The verified rollouts.
        """
        if not rewards:
            return groups
        every = [(example, each) for example, group in zip(examples, groups, strict=True) for each in group]
        with self._clock("verify"):
            rewarded = iter(self._rewarded(rewards, every))
        return [tuple(next(rewarded) for _ in group) for group in groups]

    def _rewarded(self, rewards: Rewards, every: Sequence[tuple[Example, VerifiedRollout]]) -> list[VerifiedRollout]:
        found = [verified for _, verified in every]
        for name, reward in rewards.items():
            asked = [index for index, verified in enumerate(found) if verified.verdict is not None]
            calls = [(every[index], f"a completion of example {every[index][0].id!r}") for index in asked]
            for index, answer in zip(asked, self._limit.each(reward, "__call__", calls), strict=True):
                if isinstance(answer, UnansweredError):
                    warnings.warn(str(answer), stacklevel=2)
                    found[index] = replace(found[index], verdict=None, rewards=None)
                else:
                    found[index] = replace(found[index], rewards={**(found[index].rewards or {}), name: answer})
        return [_checked(verified) for verified in found]


def check_groups(groups: Sequence[Sequence[Rollout]], num_prompts: int, num_rollouts: int, engine: str) -> None:
    """Raise unless the engine has returned what it was asked for.

    Args:
        groups: What it returned.
        num_prompts: How many groups it was asked for.
        num_rollouts: How many rollouts of each.
        engine: How errors name the engine.

    Raises:
        RolloutError: There are other numbers of groups, of rollouts, or of log-probabilities of a rollout's ids.
    """
    sizes = [len(group) for group in groups]
    if len(sizes) != num_prompts or set(sizes) - {num_rollouts}:
        found = f"{len(sizes)} groups of {', '.join(map(str, sorted(set(sizes)))) or 'no'} rollouts"
        raise RolloutError(
            f"Expected {engine} to return {num_prompts} groups of {num_rollouts} rollouts, one group for each prompt, "
            f"but got {found}. Correct its `generate`."
        )
    for number, group in enumerate(groups):
        for rollout in group:
            if len(rollout.token_ids) != len(rollout.logprobs):
                raise RolloutError(
                    f"Expected {engine} to return one log-probability for every token id, but a rollout of prompt "
                    f"{number} has {len(rollout.token_ids)} ids and {len(rollout.logprobs)} log-probabilities. Correct "
                    "its `generate`."
                )


def check_versions(groups: Sequence[Sequence[Rollout]], expected: int) -> None:
    """Raise if a rollout was not sampled with the weights that it should come from.

    Raises:
        RolloutError: A rollout carries another version than the expected one.
    """
    versions = {rollout.policy_version for group in groups for rollout in group}
    if versions - {expected}:
        raise RolloutError(
            f"Expected every rollout to be sampled by policy version {expected}, but got {sorted(versions)}: the "
            "engine generates with stale weights."
        )


def _checked(verified: VerifiedRollout) -> VerifiedRollout:
    """Return the rollout with its rewards as numbers, without any where one raised, or is no number.

    The method then asks for them itself and raises what they raise, when the rollouts are on disk.
    """
    try:
        return replace(
            verified, rewards=verified.rewards and {name: float(each) for name, each in verified.rewards.items()}
        )
    except (TypeError, ValueError):
        return replace(verified, rewards=None)
