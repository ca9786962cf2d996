"""Rollouts with vLLM: started here as a child process or in this process, or running elsewhere as servers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from caopd.distributed import gather_in_order, is_first_process, together
from caopd.errors import ConfigError, EngineDiedError, PromptTooLongError, RolloutError
from caopd.models.language_model import LanguageModel
from caopd.models.weights import Fingerprint, fingerprint, inference_weights
from caopd.rollouts.base import RolloutEngine, RolloutRequest, Sampling, rounding_of
from caopd.rollouts.decoding import decode_ids
from caopd.rollouts.vllm.base import Backend
from caopd.rollouts.vllm.handover import handed_over
from caopd.rollouts.vllm.local import LocalVLLM
from caopd.rollouts.vllm.options import ServerOptions, VLLMOptions
from caopd.rollouts.vllm.placement import Placement
from caopd.rollouts.vllm.server import VLLMServers
from caopd.rollouts.vllm.words import remedy_of
from caopd.types import Rollout, StopReason

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Held(NamedTuple):
    """Which weights vLLM has: their fingerprint, and the number of optimizer steps that they have had."""

    fingerprint: Fingerprint
    version: int


class Facts(NamedTuple):
    """What a process knows of the running vLLM that samples for it."""

    dtype: torch.dtype
    max_length: int
    architecture: str


class VLLMEngine(RolloutEngine):
    """Samples with vLLM: every process has one of its own, on its own device, and draws its own share.

    Where a model takes several GPUs (``tensor_parallel_size``), the first of as many processes holds a vLLM on theirs
    and draws for all of them; servers are asked by process 0.

    A vLLM starts with the first :meth:`sync`. Weights that have not changed since the last one are not sent again. If
    its process ends after it has worked, it is started again, given the same weights, and samples the same completions;
    one that ends before it has sampled anything would end again, and ends the run.

    Args:
        mode: Where vLLM runs: ``child`` is a process of its own, which leaves this one as it is; ``in_process`` saves a
            process, but binds this one's memory and threads and works in runs of one process only; ``server`` means
            servers that run elsewhere.
        options: Options with which vLLM is started.
        servers: Addresses of the servers, for the mode ``server`` alone.
        max_restarts: How often vLLM is started again in a run before the run ends with an error.

    Raises:
        ConfigError: If vLLM is not installed, or mode and servers do not fit together.
    """

    def __init__(
        self,
        mode: Literal["child", "in_process", "server"] = "child",
        options: VLLMOptions = VLLMOptions(),
        servers: ServerOptions | None = None,
        max_restarts: int = 2,
    ) -> None:
        if (mode == "server") != (servers is not None):
            raise ConfigError(
                f"Expected `servers` of VLLMEngine with `mode: server` and only then, but got mode {mode!r} "
                f"{'without' if servers is None else 'with'} servers."
            )
        if max_restarts < 0:
            raise ConfigError(f"Expected `max_restarts` of VLLMEngine to be at least 0, but got {max_restarts}.")
        self._backend: Backend = (
            LocalVLLM(options, mode == "in_process") if servers is None else VLLMServers(servers, options)
        )
        self.options = options if servers is None else None
        self.max_restarts = max_restarts
        self._separate_adapters = options.lora == "adapter" and servers is None
        self._restarts_left = max_restarts
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._policy: LanguageModel | None = None
        self._wanted: Held | None = None
        self._held: Held | None = None
        self._facts: Facts | None = None
        self._placement: Placement | None = None
        self._proven: set[str] = set()  # architectures that it has sampled with

    def start(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the tokenizer that decodes completions; vLLM itself starts with the first weights."""
        self._tokenizer = tokenizer
        self._restarts_left = self.max_restarts
        self._proven.clear()

    @property
    def rounding(self) -> float | None:
        """Largest mean difference (nats) that rounding may explain; None before the first ``sync``."""
        if self._facts is None or self._policy is None:
            return None
        return rounding_of(self._facts.dtype, self._policy)

    def sync(self, policy: LanguageModel, version: int) -> None:
        """Send the policy's weights to every vLLM that does not have them; a collective operation."""
        if self._placement is None:
            self._placement = Placement.of_run(None if self.options is None else self.options.tensor_parallel_size)
        self._policy = policy
        self._wanted = Held(fingerprint(policy), version)
        if any(gather_in_order([self._held != self._wanted])):
            self._held = None
        self._surely(lambda: None)

    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """Sample ``num_rollouts`` completions for every request; a collective operation."""
        if self._policy is None or self._placement is None:
            raise RolloutError("Expected `start` and `sync` before `generate`, but the engine has no policy yet.")
        placement, asked = self._placement, list(requests)
        shares = gather_in_order([asked]) if placement.is_shared else []
        if placement.is_shared:
            asked = placement.of_group(shares) if placement.holds else []
        sampled: list[list[list[Rollout]]] = []

        def sample() -> None:
            if not sampled:  # else another process's vLLM has ended meanwhile, and not this one's
                sampled.append(self._sample(asked, num_rollouts, sampling) if asked else [])

        self._surely(sample)
        self._proven.add(_architecture(self._policy))
        return placement.handed_back(gather_in_order(sampled), shares) if placement.is_shared else sampled[0]

    def rest(self) -> None:
        """Let vLLM give back its memory; the next :meth:`sync` sends all weights."""
        self._held = None
        if self._placement is not None and self._placement.holds:
            try:
                self._backend.rest()
            except EngineDiedError:  # the next sync starts another one
                self._stop()

    def close(self) -> None:
        """End vLLM and forget the policy."""
        self._policy = self._wanted = self._placement = None
        self._stop()

    def _surely(self, work: Callable[[], None]) -> None:
        """Do work in every process with the weights of the last sync; where a vLLM ends meanwhile, restart it.

        Args:
            work: Is called again in every process, whichever vLLM has ended.

        Raises:
            RolloutError: Raised in every process, if vLLM has ended before it worked, or too often.
        """
        policy = self._policy
        assert policy is not None
        while True:
            try:
                self._load()
                self._everywhere(work)
                return
            except EngineDiedError as error:
                if _architecture(policy) not in self._proven:
                    raise RolloutError(
                        f"{remedy_of(str(error))} vLLM failed before it had sampled anything, so it is not started "
                        f"again: {error}"
                    ) from error
                if self._restarts_left == 0:
                    raise RolloutError(
                        f"{remedy_of(str(error))} Then resume with `--ckpt_path`: the last checkpoint is intact. vLLM "
                        f"ended {self.max_restarts + 1} times in this run, the last time with: {error}"
                    ) from error
                self._restarts_left -= 1
                if is_first_process():
                    logger.warning("vLLM is started again; %d restarts are left. %s", self._restarts_left, error)

    def _everywhere(self, work: Callable[[], T]) -> T | None:
        """Do work in every process, and go on where it has been done in all; a collective operation.

        Raises:
            EngineDiedError: Raised in every process, where the vLLM of one has ended; there it is stopped.
        """
        died: list[EngineDiedError] = []

        def attempt() -> T | None:
            try:
                return work()
            except EngineDiedError as error:
                self._stop()
                died.append(error)
                return None

        result = together(attempt)
        ended = gather_in_order(died)
        if ended:
            raise ended[0]
        return result

    def _load(self) -> None:
        """Start every vLLM that does not run, and send it the weights of the last sync; a collective operation."""
        policy, wanted, placement = self._policy, self._wanted, self._placement
        assert policy is not None
        assert wanted is not None
        assert placement is not None
        lacks = placement.holds and self._held is None
        if not any(gather_in_order([lacks])):
            return
        self._everywhere(lambda: self._start_backend(policy) if lacks else None)
        self._facts = gather_in_order([self._facts])[placement.group[0]]
        assert self._facts is not None
        every = inference_weights(policy, self._facts.dtype, self._separate_adapters)
        way = self._backend.takes(policy) if lacks else None
        with handed_over(self._backend, way, policy, every, placement, self._everywhere) as delivery:
            self._everywhere(lambda: self._backend.load(policy, delivery, wanted.version) if lacks else None)
        self._held = wanted

    def _start_backend(self, policy: LanguageModel) -> None:
        """Start this process's vLLM, unless one of the policy's architecture runs."""
        assert self._placement is not None
        architecture = _architecture(policy)
        if self._facts is not None and self._facts.architecture != architecture:  # an external teacher
            self._stop()
        if self._facts is None:
            self._backend.start(policy, self._placement.place)
            self._facts = Facts(self._backend.dtype, self._backend.max_length, architecture)

    def _stop(self) -> None:
        self._held = self._facts = None
        self._backend.close()

    def _sample(self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling) -> list[list[Rollout]]:
        """Sample with this process's vLLM, and stamp completions with the version of the weights that it reports."""
        assert self._policy is not None
        assert self._tokenizer is not None
        assert self._wanted is not None
        self._check_lengths(requests, sampling)
        stops = self._policy.stop_token_ids
        sampled = self._backend.sample(requests, num_rollouts, sampling, stops) if requests else []
        version = self._backend.version()
        if version != self._wanted.version:
            raise EngineDiedError(
                f"vLLM holds policy version {version} in place of {self._wanted.version}: it lost the weights."
            )
        groups = []
        for completions in sampled:
            _check_finite([logprobs for _, logprobs in completions], version)
            texts = [decode_ids(self._tokenizer, completion.token_ids) for completion in completions]
            group = [
                Rollout(tuple(ids), text, _stop_reason(ids, stops), tuple(logprobs), version)
                for (ids, logprobs), text in zip(completions, texts, strict=True)
            ]
            groups.append(group * num_rollouts if len(group) < num_rollouts else group)
        return groups

    def _check_lengths(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        assert self._facts is not None
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        if longest + sampling.max_new_tokens > self._facts.max_length:
            raise PromptTooLongError(
                f"A prompt of {longest} tokens with a completion of {sampling.max_new_tokens} is longer than the "
                f"{self._facts.max_length} tokens that vLLM takes. Nothing is cut. Raise `max_model_len` of the "
                "engine's options, or lower `max_new_tokens`."
            )


def _architecture(policy: LanguageModel) -> str:
    """Return what a vLLM is started for."""
    return f"{policy.hf.config.to_json_string()} LoRA rank: {policy.lora_rank}"


def _stop_reason(ids: Sequence[int], stops: Sequence[int]) -> StopReason:
    return StopReason.EOS if ids and ids[-1] in stops else StopReason.LENGTH


def _check_finite(logprobs: Sequence[Sequence[float]], version: int) -> None:
    if not all(math.isfinite(value) for completion in logprobs for value in completion):
        raise RolloutError(
            f"Expected vLLM's log-probabilities of what it sampled with policy version {version} to be finite, but "
            "they are not: its weights, or what it computes in its dtype, are NaN or infinite. Take an earlier "
            "checkpoint, or another `dtype` in the engine's options."
        )
