"""Chooses the rollout engine that suits the model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedTokenizerBase

from caopd.errors import RolloutError
from caopd.models.language_model import LanguageModel
from caopd.rollouts.base import RolloutEngine, RolloutRequest, Sampling
from caopd.rollouts.transformers_engine import TransformersEngine
from caopd.rollouts.vllm.engine import VLLMEngine
from caopd.rollouts.vllm.options import VLLMOptions
from caopd.types import Rollout

SMALL = 1_000_000
"""Number of parameters up to which starting vLLM and sending it weights costs more time than it saves."""


class AutoEngine(RolloutEngine):
    """Takes vLLM where it is installed and the model is not tiny, else transformers; the log says which, and why.

    Args:
        vllm: Options with which vLLM is started.
        batch_size: Largest number of completions that transformers samples at once.
    """

    def __init__(self, vllm: VLLMOptions = VLLMOptions(), batch_size: int = 512) -> None:
        self.vllm = vllm
        self.batch_size = batch_size
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self.chosen: RolloutEngine | None = None

    def start(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the tokenizer; the choice is made with the first policy."""
        self._tokenizer = tokenizer

    @property
    def rounding(self) -> float | None:
        """The chosen engine's difference (nats) that rounding may explain."""
        return None if self.chosen is None else self.chosen.rounding

    def sync(self, policy: LanguageModel, version: int) -> None:
        """Choose the engine at the first call, and pass the weights on to it."""
        if self.chosen is None:
            self.chosen, reason = self._choose(policy)
            rank_zero_info(f"rollout engine: {type(self.chosen).__name__}, because {reason}")
            assert self._tokenizer is not None
            self.chosen.start(self._tokenizer)
        self.chosen.sync(policy, version)

    def _choose(self, policy: LanguageModel) -> tuple[RolloutEngine, str]:
        num_parameters = sum(parameter.numel() for parameter in policy.parameters())
        if num_parameters <= SMALL:
            return TransformersEngine(self.batch_size), f"the model is small ({num_parameters:,} parameters)"
        if find_spec("vllm") is None:
            return TransformersEngine(self.batch_size), "vLLM is not installed (pip install 'caopd[vllm]')"
        return VLLMEngine(options=self.vllm), f"the model has {num_parameters:,} parameters and vLLM is installed"

    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """Let the chosen engine sample."""
        if self.chosen is None:
            raise RolloutError("Expected `start` and `sync` before `generate`, but the engine has no policy yet.")
        return self.chosen.generate(requests, num_rollouts, sampling)

    def rest(self) -> None:
        """Let the chosen engine rest."""
        if self.chosen is not None:
            self.chosen.rest()

    def close(self) -> None:
        """Close the chosen engine; the next policy makes a new choice."""
        if self.chosen is not None:
            self.chosen.close()
            self.chosen = None
