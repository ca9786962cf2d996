"""An engine whose completions all state a confidence, for what CaOPD costs where nothing has to be appended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from caopd.confidence import ConfidenceFormat
from caopd.models import LanguageModel
from caopd.rollouts import RolloutRequest, Sampling
from caopd.types import Rollout, StopReason

STATED = 0.85


class StatedEngine:
    """Returns words of the prompt, a stated confidence after them, and the end.

    It samples from no model, so log-probabilities are 0 and the parity guard has nothing to compare.

    Args:
        length: Tokens of every completion, with the confidence and the end.
        confidence: Writes the confidence.
    """

    rounding = None

    def __init__(self, length: int, confidence: ConfidenceFormat) -> None:
        self.length = length
        self.confidence = confidence

    def start(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the tokenizer."""
        self._tokenizer = tokenizer

    def sync(self, policy: LanguageModel, version: int) -> None:
        """Note the version of the weights, which are not used."""
        self._version = version

    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """Return completions of equal length for every request."""
        segment = self._tokenizer("\n" + self.confidence.render(STATED), add_special_tokens=False)["input_ids"]
        ending = [*segment, self._tokenizer.eos_token_id]
        return [[self._rollout(request, number, ending) for number in range(num_rollouts)] for request in requests]

    def _rollout(self, request: RolloutRequest, number: int, ending: list[int]) -> Rollout:
        generator = torch.Generator().manual_seed(request.seed + number)
        special = set(self._tokenizer.all_special_ids)
        words = torch.tensor([token for token in request.prompt_ids if token not in special])
        chosen = words[torch.randint(len(words), (self.length - len(ending),), generator=generator)]
        ids = (*chosen.tolist(), *ending)
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Rollout(ids, text, StopReason.EOS, (0.0,) * len(ids), self._version)

    def rest(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
