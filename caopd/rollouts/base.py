"""The protocol of rollout engines. Whoever samples completions sees the model only through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerBase

from caopd.errors import ConfigError
from caopd.models.language_model import LanguageModel
from caopd.types import Rollout


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        temperature: Divides the logits; 0 takes the most probable token (greedy).
        top_p: Smallest set of tokens with at least this probability is kept; 1 keeps all.
        top_k: Number of most probable tokens kept; 0 keeps all.
        max_new_tokens: Length of the longest completion in tokens, the end-of-sequence token included.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"Expected `temperature` to be 0 (greedy) or larger, but got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"Expected `top_p` to be in (0, 1], but got {self.top_p}.")
        if self.top_k < 0:
            raise ConfigError(f"Expected `top_k` to be 0 (all tokens) or larger, but got {self.top_k}.")
        if self.max_new_tokens < 1:
            raise ConfigError(f"Expected `max_new_tokens` to be at least 1, but got {self.max_new_tokens}.")


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """One prompt to complete.

    Attributes:
        prompt_ids: Token ids of the rendered prompt.
        seed: Seed of the random numbers of the prompt's group: the same seed gives the same completions in any batch.
    """

    prompt_ids: tuple[int, ...]
    seed: int


def rounding_of(dtype: torch.dtype, policy: LanguageModel) -> float:
    """Return the mean difference between an engine's log-probabilities and a policy's (nats) that rounding may explain.

    Args:
        dtype: The dtype that the engine computes in.
        policy: The model that is compared with it, in the precision in which it computes now: under autocast it is that
            of 16 bits, whatever its weights are.
    """
    # How precise float32 is on tensor cores is a setting of torch, not of an engine.
    exact = not torch.is_autocast_enabled(policy.device.type) and torch.get_float32_matmul_precision() == "highest"
    return 0.002 if exact and dtype == policy.dtype == torch.float32 else 0.05


@runtime_checkable
class RolloutEngine(Protocol):
    """Samples completions with the weights of the current student."""

    def start(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Prepare for a run; called once, before anything else.

        Args:
            tokenizer: Decodes completions.
        """
        ...

    def sync(self, policy: LanguageModel, version: int) -> None:
        """Take over the policy's weights as they are now; later rollouts carry ``version``.

        Args:
            policy: The model whose weights are taken over, mostly the student.
            version: Number of optimizer steps that these weights have had.
        """
        ...

    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """Sample ``num_rollouts`` completions for every request.

        Args:
            requests: Prompts with the seeds of their groups.
            num_rollouts: G, the number of completions per prompt.
            sampling: Temperature, top-p, top-k and length limit.

        Returns:
            One list of G rollouts per request, in the order of the requests.

        Raises:
            RolloutError: If no weights were synced yet, or the policy's logits are NaN.
        """
        ...

    @property
    def rounding(self) -> float | None:
        """Largest mean difference (nats) between its log-probabilities and the student's that rounding may explain.

        None before the first ``sync``, and where nothing is to be compared.
        """
        ...

    def rest(self) -> None:
        """Give back memory that can be taken again; nothing is sampled before the next ``sync``."""
        ...

    def close(self) -> None:
        """Give back everything that ``start`` took."""
        ...
