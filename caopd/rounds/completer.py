"""Samples completions with given weights and verifies them, for training, evaluation and the teacher alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from transformers import PreTrainedTokenizerBase

from caopd.confidence import ConfidenceFormat
from caopd.distributed import together
from caopd.errors import RolloutError
from caopd.models.language_model import LanguageModel
from caopd.rollouts import RolloutEngine, RolloutRequest, Sampling
from caopd.rollouts.decoding import opens_thought
from caopd.rounds.parity import ParityConfig, check_parity
from caopd.rounds.phases import PhaseClock
from caopd.types import Example, Rollout, VerifiedRollout
from caopd.verifiers import Verifier
from caopd.verifiers.verification import Verification


class Completer:
    """Samples completions with an engine, reads their confidence, has them verified, and times all of this.

    Args:
        engine: The engine that samples; already started.
        tokenizer: Tells whether a prompt ends with the opening of a thought.
        confidence_format: Reads the stated confidence.
        clock: Times the phases of a round.
        precision: Lightning's precision, so that the model computes as it does in training.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        confidence_format: ConfidenceFormat,
        clock: PhaseClock,
        precision: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._confidence_format = confidence_format
        self._clock = clock
        self._precision = precision
        self._version = -1

    def sync(self, policy: LanguageModel, version: int) -> None:
        """Hand the policy's current weights to the engine.

        Args:
            policy: The model whose weights are handed over.
            version: Number of optimizer steps that these weights have had.
        """
        with self._clock("sync"):
            self._engine.sync(policy, version)
        self._version = version

    def complete(
        self,
        examples: Sequence[Example],
        requests: Sequence[RolloutRequest],
        num_rollouts: int,
        sampling: Sampling,
        verifier: Verifier,
    ) -> list[tuple[VerifiedRollout, ...]]:
        """Sample ``num_rollouts`` completions per request and verify each against its example.

        Args:
            examples: The rows of the prompts.
            requests: The rows' prompts as token ids, and the seeds of their groups.
            num_rollouts: G, the number of completions per prompt.
            sampling: Temperature, top-p, top-k and length limit.
            verifier: The verifier of the examples' task.

        Raises:
            RolloutError: The engine sampled with other weights than those of the last sync.
            PeerError: The verifier has failed in another process.
        """
        with self._clock("rollout"), self._precision():
            groups = self._engine.generate(requests, num_rollouts, sampling)
        verification = Verification(verifier, self._confidence_format)

        def verified() -> list[tuple[VerifiedRollout, ...]]:
            check_versions(groups, self._version)
            begun = [opens_thought(self._tokenizer, request.prompt_ids) for request in requests]
            return [
                tuple(verification(rollout, example, thinks) for rollout in group)
                for example, group, thinks in zip(examples, groups, begun, strict=True)
            ]

        with self._clock("verify"):
            return together(verified)  # what comes next may be a sharded model's forward pass, which is collective

    def compare(
        self,
        policy: LanguageModel,
        requests: Sequence[RolloutRequest],
        groups: Sequence[Sequence[VerifiedRollout]],
        config: ParityConfig,
    ) -> dict[str, float]:
        """Compare some rollouts with the model that should have sampled them; see :mod:`caopd.rounds.parity`."""
        prompts = [request.prompt_ids for request in requests]
        sampled = [[verified.rollout for verified in group] for group in groups]
        with self._clock("verify"), self._precision():
            return check_parity(policy, prompts, sampled, config, self._engine.rounding)


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
