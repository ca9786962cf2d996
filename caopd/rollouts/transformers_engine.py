"""Rollouts with transformers' ``generate`` from the student in memory: there is no second copy of its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from caopd.errors import ConfigError, RolloutError
from caopd.models.language_model import LanguageModel
from caopd.rollouts.base import RolloutEngine, RolloutRequest, Sampling, rounding_of
from caopd.rollouts.decoding import decode_ids
from caopd.rollouts.progress import tell_progress
from caopd.rollouts.sampler import SeededSampler
from caopd.types import Rollout, StopReason


class TransformersEngine(RolloutEngine):
    """Samples, or decodes greedily, with transformers: batched, left-padded, with a key-value cache.

    Args:
        batch_size: Largest number of completions that are sampled at once, which bounds the key-value cache. A group is
            never split: if it has more rollouts than this, one group is sampled at a time.

    Raises:
        ConfigError: If ``batch_size`` is below 1.
    """

    def __init__(self, batch_size: int = 512) -> None:
        if batch_size < 1:
            raise ConfigError(f"Expected `batch_size` of TransformersEngine to be at least 1, but got {batch_size}.")
        self.batch_size = batch_size
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._policy: LanguageModel | None = None
        self._version = -1

    def start(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the tokenizer that decodes completions."""
        self._tokenizer = tokenizer

    def sync(self, policy: LanguageModel, version: int) -> None:
        """Generate from ``policy`` itself from now on."""
        self._policy = policy
        self._version = version

    @property
    def rounding(self) -> float | None:
        """Largest mean difference (nats) that a key-value cache and padding explain; None before the first ``sync``."""
        return None if self._policy is None else rounding_of(self._policy.dtype, self._policy)

    def rest(self) -> None:
        """Do nothing: the weights are the student's, so there is nothing to give back."""

    def close(self) -> None:
        """Forget the policy."""
        self._policy = None

    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """Sample ``num_rollouts`` completions for every request; see :class:`caopd.rollouts.base.RolloutEngine`."""
        if self._policy is None or self._tokenizer is None:
            raise RolloutError("Expected `start` and `sync` before `generate`, but the engine has no policy yet.")
        groups_at_once = max(1, self.batch_size // num_rollouts)
        was_training = self._policy.training
        self._policy.eval()
        groups: list[list[Rollout]] = []
        try:
            for start in range(0, len(requests), groups_at_once):
                batch = requests[start : start + groups_at_once]
                told = partial(_tell, start, len(batch), len(requests), num_rollouts, sampling.max_new_tokens)
                groups += self._generate_batch(batch, num_rollouts, sampling, told)
                told(sampling.max_new_tokens)
        finally:
            self._policy.train(was_training)
        return groups

    def _generate_batch(
        self,
        requests: Sequence[RolloutRequest],
        num_rollouts: int,
        sampling: Sampling,
        on_token: Callable[[int], None],
    ) -> list[list[Rollout]]:
        policy, tokenizer = self._policy, self._tokenizer
        assert policy is not None
        assert tokenizer is not None
        input_ids_PL, attention_mask_PL = _left_pad(requests, policy.pad_token_id, policy.device)
        seeds = [request.seed for request in requests]
        sampler = SeededSampler(seeds, num_rollouts, sampling, policy.device, on_token)
        completions_BT = policy.generate(
            input_ids_PL, attention_mask_PL, num_rollouts, sampling.max_new_tokens, sampler
        ).cpu()
        logprobs_BT, drawn_BT = sampler.logprobs_BT().cpu(), sampler.drawn_logprobs_BT().cpu()
        stops = torch.tensor(policy.stop_token_ids)
        lengths, stop_reasons = _lengths(completions_BT, stops)
        rows = [row[:length] for row, length in zip(completions_BT.tolist(), lengths, strict=True)]
        is_sampled_BT = torch.arange(logprobs_BT.shape[1]) < torch.tensor(lengths)[:, None]
        if not logprobs_BT[is_sampled_BT].isfinite().all():
            raise RolloutError(
                f"Expected the logits of policy version {self._version} to be finite numbers, but they are not: its "
                "weights, or what it computes in 16-bit floats, are NaN or infinite. Take an earlier checkpoint, or "
                "`trainer.precision: 32-true`."
            )
        chosen = sampler.chosen_BT().tolist()
        _check_emitted(rows, stop_reasons, chosen, sampling.max_new_tokens, type(policy.hf).__name__)
        texts = [decode_ids(tokenizer, row) for row in rows]
        rollouts = [
            Rollout(tuple(row), text, stop_reason, tuple(logprobs[: len(row)]), self._version, tuple(drawn[: len(row)]))
            for row, text, stop_reason, logprobs, drawn in zip(
                rows, texts, stop_reasons, logprobs_BT.tolist(), drawn_BT.tolist(), strict=True
            )
        ]
        return [rollouts[i : i + num_rollouts] for i in range(0, len(rollouts), num_rollouts)]


def _tell(
    num_done: int, num_now: int, num_requests: int, num_rollouts: int, max_new_tokens: int, num_tokens: int
) -> None:
    """Tell how far all requests have come, when those that are completed now have some tokens."""
    done = num_done + num_now * num_tokens / max_new_tokens
    tell_progress(done * num_rollouts, num_requests * num_rollouts)


def _left_pad(requests: Sequence[RolloutRequest], pad_token_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask [P, L], padded on the left."""
    longest = max(len(request.prompt_ids) for request in requests)
    ids, mask = [], []
    for request in requests:
        padding = longest - len(request.prompt_ids)
        ids.append([pad_token_id] * padding + list(request.prompt_ids))
        mask.append([0] * padding + [1] * len(request.prompt_ids))
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _lengths(completions_BT: Tensor, stops: Tensor) -> tuple[list[int], list[StopReason]]:
    """Return each row's number of sampled tokens, its stop token included, and why it ended."""
    is_stop_BT = torch.isin(completions_BT, stops)
    ended_B = is_stop_BT.any(1)
    first_stop_B = is_stop_BT.int().argmax(1)
    lengths_B = torch.where(ended_B, first_stop_B + 1, completions_BT.shape[1])
    reasons = [StopReason.EOS if ended else StopReason.LENGTH for ended in ended_B.tolist()]
    return lengths_B.tolist(), reasons


def _check_emitted(
    rows: Sequence[list[int]],
    stop_reasons: Sequence[StopReason],
    chosen: Sequence[list[int]],
    max_new_tokens: int,
    model: str,
) -> None:
    """Raise unless every completion is what the sampler chose, up to a stop token or the length limit."""
    for row, stop_reason, tokens in zip(rows, stop_reasons, chosen, strict=True):
        is_cut = stop_reason is StopReason.LENGTH and len(row) < max_new_tokens
        if row != tokens[: len(row)] or is_cut:
            differs = (n for n, pair in enumerate(zip(row, tokens, strict=False)) if pair[0] != pair[1])
            number = next(differs, None)
            found = (
                f"one ends after {len(row)} tokens, of {max_new_tokens}, without a stop token"
                if number is None
                else f"token {number + 1} of one is {row[number]} where {tokens[number]} was drawn"
            )
            raise RolloutError(
                f"Expected `generate` of {model} to return completions as they were drawn, but {found}: something "
                "changes or ends them after the draw, such as a generation default of the model's files "
                "(`stop_strings`, `max_time`, a further `eos_token_id`) or a logits processor of its class. Take it "
                "out of the model's files or code."
            )
