"""Seeded sampling as a logits processor, so that transformers' own ``generate`` loop can be used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from caopd.rollouts.base import Sampling


class SeededSampler(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Chooses every next token itself and records its log-probability.

    ``generate`` runs greedily, and this processor leaves it only one token per row to choose. The token is found by
    inversion: it is the first whose cumulative probability exceeds a uniform random number. The uniform numbers of all
    rows and steps of a group are made beforehand from the group's seed, so a completion does not depend on what else is
    in the batch. One number per token is far cheaper than the V exponentials that ``torch.multinomial`` makes.

    Args:
        seeds: The seed of each group; the batch holds ``len(seeds) * num_rollouts`` rows, group by group.
        num_rollouts: G, the number of rows per group.
        sampling: Temperature, top-p, top-k and length limit.
        device: The device of the logits.
    """

    def __init__(self, seeds: Sequence[int], num_rollouts: int, sampling: Sampling, device: torch.device) -> None:
        self.greedy = sampling.temperature == 0
        self.warpers = _warpers(sampling)
        self.logprobs: list[Tensor] = []
        shape = (num_rollouts, sampling.max_new_tokens)
        self.uniforms_BT = torch.cat(
            [torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
        ).to(device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [B, V] in which only the chosen token is finite.

        Args:
            input_ids: Tokens so far [B, L].
            scores: Raw logits of the next token [B, V].
        """
        logits_BV = scores.float()
        if self.greedy:
            chosen_B = logits_BV.argmax(-1)
        else:
            chosen_B = _invert(self.warpers(input_ids, logits_BV), self.uniforms_BT[:, len(self.logprobs)])
        chosen_B1 = chosen_B[:, None]
        self.logprobs.append((logits_BV.gather(1, chosen_B1) - logits_BV.logsumexp(-1, keepdim=True))[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(1, chosen_B1, 0.0)

    def logprobs_BT(self) -> Tensor:
        """Return the recorded log-probabilities (nats) under the raw logits [B, T]."""
        return torch.stack(self.logprobs, dim=1)


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


def _invert(logits_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """Return the first token [B] whose cumulative probability exceeds the row's uniform number in [0, 1).

    Where the logits are NaN it is the last token, whose log-probability is NaN, too.
    """
    cumulative_BV = logits_BV.softmax(-1).cumsum(-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    threshold_B1 = torch.minimum(uniforms_B[:, None] * total_B1, total_B1 * (1 - 1e-12))
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
