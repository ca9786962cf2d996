"""Seeded sampling as a logits processor, so that transformers' own ``generate`` loop can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """Chooses every next token itself, and records it and its log-probabilities.

    ``generate`` runs greedily, and this processor leaves it only one token per row to choose. The token is found by
    inversion: it is the first whose cumulative probability exceeds a uniform random number. The uniform numbers of all
    rows and steps of a group are made beforehand from the group's seed, so a completion does not depend on what else is
    in the batch. One number per token is far cheaper than the V exponentials that ``torch.multinomial`` makes.

    Args:
        seeds: The seed of each group; the batch holds ``len(seeds) * num_rollouts`` rows, group by group.
        num_rollouts: G, the number of rows per group.
        sampling: Temperature, top-p, top-k and length limit.
        device: The device of the logits.
        on_token: Called with the number of tokens so far, whenever every row has another one.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        num_rollouts: int,
        sampling: Sampling,
        device: torch.device,
        on_token: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._on_token = on_token
        self.greedy = sampling.temperature == 0
        self.warpers = _warpers(sampling)
        self.chosen: list[Tensor] = []
        self.logprobs: list[Tensor] = []
        self.drawn_logprobs: list[Tensor] = []
        shape = (num_rollouts, sampling.max_new_tokens)
        self.uniforms_BT = torch.cat(
            [torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
        ).to(device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [B, V] in which only the chosen token is finite.

        Args:
            input_ids: Tokens so far [B, L].
            scores: Logits of the next token [B, V], as whatever stands before it in ``generate`` leaves them.
        """
        logits_BV = scores.float()
        if self.greedy:
            chosen_B = logits_BV.argmax(-1)
            logprob_B = _logprob(logits_BV, chosen_B)
            drawn_B = torch.zeros_like(logprob_B)
        else:
            warped_BV = self.warpers(input_ids, logits_BV)
            chosen_B = _invert(warped_BV, self.uniforms_BT[:, len(self.logprobs)])
            logprob_B = _logprob(logits_BV, chosen_B)
            drawn_B = _logprob(warped_BV, chosen_B) if self.warpers else logprob_B
        self.chosen.append(chosen_B)
        self.logprobs.append(logprob_B)
        self.drawn_logprobs.append(drawn_B)
        self._on_token(len(self.chosen))
        return torch.full_like(scores, -torch.inf).scatter(1, chosen_B[:, None], 0.0)

    def chosen_BT(self) -> Tensor:
        """Return the chosen tokens [B, T]."""
        return torch.stack(self.chosen, dim=1)

    def logprobs_BT(self) -> Tensor:
        """Return the recorded log-probabilities (nats) under the logits that it was given [B, T]."""
        return torch.stack(self.logprobs, dim=1)

    def drawn_logprobs_BT(self) -> Tensor:
        """Return the recorded log-probabilities (nats) under what the tokens were drawn from [B, T]; 0 if greedy."""
        return torch.stack(self.drawn_logprobs, dim=1)


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


def _logprob(logits_BV: Tensor, chosen_B: Tensor) -> Tensor:
    """Return the log-probability of one token per row [B]."""
    return (logits_BV.gather(1, chosen_B[:, None]) - logits_BV.logsumexp(-1, keepdim=True))[:, 0]


def _invert(logits_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """Return the first token [B] whose cumulative probability exceeds the row's uniform number in [0, 1).

    Where the logits are NaN it is the last token, whose log-probability is NaN, too.
    """
    cumulative_BV = logits_BV.softmax(-1).cumsum(-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    threshold_B1 = torch.minimum(uniforms_B[:, None] * total_B1, total_B1 * (1 - 1e-12))
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
