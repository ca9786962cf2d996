"""Checks that the rollouts are the student's own, by comparing the engine's log-probabilities with the student's.

An engine that holds a copy of the weights can become stale in silence: by a head that was not sent, or a key-value
cache of earlier weights. It shows when the student itself computes the log-probabilities of some sampled tokens
(*teacher-forcing*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caopd.distributed import gather_in_order
from caopd.errors import ConfigError, RolloutError
from caopd.losses import ModelOutput
from caopd.losses.logprobs import target_logprobs
from caopd.models import LanguageModel
from caopd.types import Rollout


@dataclass(frozen=True)
class ParityConfig:
    """How many rollouts are compared with the student, and how large the difference may be.

    Attributes:
        num_rollouts: Number of rollouts of every round and process that are compared; 0 compares none.
        limit: Largest difference (nats, mean over a rollout's tokens) that does not stop the run; None takes what
            rounding in the engine's dtype may explain.

    Raises:
        ConfigError: A value is negative.
    """

    num_rollouts: int = 4
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.num_rollouts < 0 or (self.limit is not None and self.limit < 0):
            raise ConfigError(
                f"Expected `num_rollouts` and `limit` of the parity guard to be 0 or larger, but got {self}."
            )


def check_parity(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Rollout]],
    config: ParityConfig,
    rounding: float | None,
) -> dict[str, float]:
    """Compare some rollouts with the model that should have sampled them; a collective operation.

    Args:
        policy: The model that the rollouts should come from.
        prompts: Token ids of the prompt of each group.
        groups: The rollouts of each group; there are equally many groups in every process.
        config: How many rollouts are compared, and the limit.
        rounding: Difference that rounding in the engine may explain; None where nothing is compared.

    Returns:
        ``parity_mean`` and ``parity_max``: mean and largest absolute difference over all compared tokens, nats.

    Raises:
        RolloutError: Raised in every process, if a rollout differs by more than the limit.
    """
    if rounding is None or config.num_rollouts == 0:
        return {}
    differences = gather_in_order(
        [_difference_T(policy, *pair) for pair in _chosen(prompts, groups, config.num_rollouts)]
    )
    worst = float(torch.stack([difference_T.mean() for difference_T in differences]).max())  # keeps NaN
    every_T = torch.cat(differences)
    limit = rounding if config.limit is None else config.limit
    if not worst <= limit:
        raise RolloutError(
            f"Expected the engine's log-probabilities of the tokens it sampled to be the student's within {limit} nats "
            f"(mean over a rollout), but they differ by up to {worst:.4f} (single tokens by {every_T.max():.4f}): "
            "these rollouts are not on-policy. Its weights, its head or its key-value cache are not the student's, or "
            "it computes in another dtype (then set `dtype` of the engine's options, or `data.parity.limit`)."
        )
    return {"parity_mean": float(every_T.mean()), "parity_max": float(every_T.max())}


def _chosen(
    prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Rollout]], num_rollouts: int
) -> list[tuple[Sequence[int], Rollout]]:
    """Return rollouts spread over all groups, and not only the first of each group."""
    pairs = [(prompt, rollout) for prompt, group in zip(prompts, groups, strict=True) for rollout in group]
    count = min(num_rollouts, len(pairs))
    return [pairs[(2 * index + 1) * len(pairs) // (2 * count)] for index in range(count)]


@torch.no_grad()
def _difference_T(policy: LanguageModel, prompt: Sequence[int], rollout: Rollout) -> Tensor:
    """Return the absolute difference at every token of a rollout, on the CPU."""
    ids_1L = torch.tensor([[*prompt, *rollout.token_ids]], device=policy.device)
    position_L = torch.arange(ids_1L.shape[1], device=policy.device)
    predictors_1L = ((position_L >= len(prompt) - 1) & (position_L < ids_1L.shape[1] - 1))[None]
    target_T = ids_1L[0, len(prompt) :]
    was_training = policy.training
    policy.eval()
    try:
        logprob_T = policy(
            ids_1L,
            torch.ones_like(ids_1L),
            predictors_1L,
            lambda hidden_TH, head_VH: target_logprobs(ModelOutput(hidden_TH, head_VH), target_T),
        )
    finally:
        policy.train(was_training)
    difference_T: Tensor = (logprob_T.cpu() - torch.tensor(rollout.logprobs)).abs()
    return difference_T
