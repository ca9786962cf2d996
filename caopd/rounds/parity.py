"""Checks that completions are the model's own, by comparing the engine's log-probabilities with the model's.

An engine that holds a copy of the weights can become stale in silence: by a head that was not sent, or a key-value
cache of earlier weights. One that samples from the model in memory can still draw from another distribution than the
model's: by a generation default of the model's files, a logits processor of its class, padding that is attended to. All
of this shows when the model itself computes the log-probabilities of some sampled tokens (*teacher-forcing*), under its
own distribution and under the one that the settings of sampling state.

Shape suffixes: T tokens of a completion or of a chunk of it, V vocabulary, L tokens of prompt and completion, H hidden
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from caopd.distributed import gather_in_order, together
from caopd.errors import ConfigError, RolloutError
from caopd.losses import ModelOutput
from caopd.losses.chunks import Chunk, Part, TokenTerm, chunked_loss
from caopd.losses.distributions import log_probability_of
from caopd.models import LanguageModel
from caopd.models.packing import pack
from caopd.rollouts.base import Sampling
from caopd.types import Rollout


@dataclass(frozen=True)
class ParityConfig:
    """How many completions are compared with the model, and how large the difference may be.

    Attributes:
        num_rollouts: Number of completions of every process that are compared each time that the weights, or the
            settings of sampling, are others: in every round, validation and test. 0 compares none.
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


class _Pair(NamedTuple):
    """The log-probabilities of a completion's tokens as the engine reports them and as the model computes them."""

    engine_T: Tensor
    model_T: Tensor

    @property
    def difference_T(self) -> Tensor:
        return (self.engine_T - self.model_T).abs()


class _Compared(NamedTuple):
    """A completion, and its pairs under the unscaled distribution and under the one that tokens are drawn from."""

    token_ids: Sequence[int]
    unscaled: _Pair
    drawn: _Pair | None


def check_parity(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Rollout]],
    sampling: Sampling,
    config: ParityConfig,
    rounding: float | None,
) -> dict[str, float]:
    """Compare some completions with the model that should have sampled them; a collective operation.

    Args:
        policy: The model that the completions should come from.
        prompts: Token ids of the prompt of each group.
        groups: The completions of each group; there are equally many groups in every process.
        sampling: How they should have been sampled.
        config: How many of them are compared, and the limit.
        rounding: Difference that rounding in the engine may explain; None where nothing is compared.

    Returns:
        ``parity_mean`` and ``parity_max``: mean and largest absolute difference under the unscaled distribution, over
        all compared tokens, nats.

    Raises:
        RolloutError: Raised in every process, if a completion differs by more than the limit.
    """
    if rounding is None or config.num_rollouts == 0:
        return {}
    chosen = _chosen(prompts, groups, config.num_rollouts)
    mine = together(lambda: [_recomputed(policy, *pair, sampling) for pair in chosen])
    compared = [each for each in gather_in_order(mine) if each.token_ids]
    if not compared:
        return {}
    limit = rounding if config.limit is None else config.limit
    unscaled = [(each, each.unscaled) for each in compared]
    drawn = [(each, each.drawn) for each in compared if each.drawn is not None]
    _check(unscaled, limit, _OTHER_MODEL)
    # Rounding of the logits is divided by the temperature, as they are.
    _check(drawn, limit / min(1.0, sampling.temperature or 1.0), f"{_OTHER_SAMPLING} {sampling}.")
    every_T = torch.cat([pair.difference_T for _, pair in unscaled])
    return {"parity_mean": float(every_T.mean()), "parity_max": float(every_T.max())}


_OTHER_MODEL = (
    "Its weights, its head or its key-value cache are not the model's; or logits are changed before tokens are drawn, "
    "by a generation default of the model's files (generation_config.json) or a logits processor of its class; or "
    "padding is attended to, or positions are counted otherwise; or it computes in another dtype (then set `dtype` of "
    "the engine's options, or `data.parity.limit`)."
)
_OTHER_SAMPLING = (
    "The model's own log-probabilities agree, so it is the sampling that differs: tokens are not drawn as the settings "
    "say. Correct the engine, which was asked for"
)


def _check(pairs: Sequence[tuple[_Compared, _Pair]], limit: float, cause: str) -> None:
    """Raise if the mean difference of a completion is above the limit, or not a number."""
    if not pairs:
        return
    mean_B = torch.stack([pair.difference_T.mean() for _, pair in pairs])
    compared, worst = pairs[int(mean_B.argmax())]  # the one that is not a number, where there is one
    if mean_B.max() <= limit:
        return
    differs_T = ~(worst.difference_T <= limit)
    first = int(differs_T.int().argmax())
    is_surer = bool((worst.engine_T > worst.model_T)[differs_T].all())
    left_out = (
        " The engine is surer of every token that differs, as where other tokens are left out." if is_surer else ""
    )
    largest = torch.cat([pair.difference_T for _, pair in pairs]).max()
    raise RolloutError(
        f"Expected the engine's log-probabilities of the tokens it sampled to be the model's within {limit:.3g} nats "
        f"(mean over a completion), but they differ by up to {mean_B.max():.4f} (single tokens by {largest:.4f}): "
        f"these rollouts are not on-policy. First at token {first + 1} of one, id {compared.token_ids[first]}: "
        f"{worst.engine_T[first]:.4f} by the engine, {worst.model_T[first]:.4f} by the model.{left_out} {cause}"
    )


def _chosen(
    prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Rollout]], num_rollouts: int
) -> list[tuple[Sequence[int], Rollout]]:
    """Return rollouts spread over all groups, and not only the first of each group."""
    pairs = [(prompt, rollout) for prompt, group in zip(prompts, groups, strict=True) for rollout in group]
    count = min(num_rollouts, len(pairs))
    return [pairs[(2 * index + 1) * len(pairs) // (2 * count)] for index in range(count)]


@torch.no_grad()
def _recomputed(policy: LanguageModel, prompt: Sequence[int], rollout: Rollout, sampling: Sampling) -> _Compared:
    """Return what engine and model say of every token of a completion, on the CPU."""
    sequence = pack([prompt], [rollout.token_ids], policy.pad_token_id).to(policy.device)
    target_T = torch.tensor(rollout.token_ids, device=policy.device)
    was_training = policy.training
    policy.eval()
    try:
        own_T, stated_T = policy(
            sequence,
            lambda hidden_TH, head_VH: _logprobs(ModelOutput(hidden_TH, head_VH), target_T, sampling),
        )
    finally:
        policy.train(was_training)
    drawn = rollout.drawn_logprobs
    return _Compared(
        rollout.token_ids,
        _Pair(torch.tensor(rollout.logprobs), own_T.cpu()),
        None if drawn is None else _Pair(torch.tensor(drawn), stated_T.cpu()),
    )


def _logprobs(output: ModelOutput, target_T: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return the targets' log-probabilities under the model's own distribution, and under the stated one."""
    stated_T = output.zeros_T()

    def objective(chunk: Chunk) -> TokenTerm:
        stated_T[chunk.rows_T] = stated_logprobs(chunk.student_TV, target_T[chunk.rows_T], sampling)
        return TokenTerm(log_probability_of(chunk.student_TV, target_T[chunk.rows_T]), None)

    _, own_T = chunked_loss(output, None, output.zeros_T(), [Part(objective)])
    return own_T, stated_T


def stated_logprobs(logprob_TV: Tensor, target_T: Tensor, sampling: Sampling) -> Tensor:
    """Return every target's log-probability under temperature, then top-k, then top-p; nats.

    A target that these leave out counts as kept: where it is the last to be kept, rounding decides. If the engine keeps
    many that should be left out, the others' probabilities differ. With temperature 0 it is by how much the target is
    less likely than the most probable token.

    Args:
        logprob_TV: Log-probabilities of the model.
        target_T: Token ids, int64.
        sampling: Temperature, top-p and top-k.

    Example:
        >>> logprob_TV = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> stated_logprobs(logprob_TV, torch.tensor([0]), Sampling(top_k=2)).exp()
        tensor([0.6250])
    """
    own_T = log_probability_of(logprob_TV, target_T)
    if sampling.temperature == 0:
        return own_T - logprob_TV.amax(-1)
    if sampling.temperature == 1 and sampling.top_p == 1 and sampling.top_k == 0:
        return own_T
    sorted_TV, token_TV = (logprob_TV / sampling.temperature).sort(-1, descending=True)
    kept_TV = torch.ones_like(token_TV, dtype=torch.bool)
    if sampling.top_k:
        kept_TV[:, sampling.top_k :] = False
    probability_TV = sorted_TV.masked_fill(~kept_TV, -torch.inf).softmax(-1)
    kept_TV &= probability_TV.cumsum(-1) - probability_TV < sampling.top_p
    kept_TV |= token_TV == target_T[:, None]
    return own_T / sampling.temperature - sorted_TV.masked_fill(~kept_TV, -torch.inf).logsumexp(-1)
