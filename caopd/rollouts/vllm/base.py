"""The protocol by which the vLLM engine works with a vLLM: in a child process, in this process or on servers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from caopd.models.language_model import LanguageModel
from caopd.rollouts.base import RolloutRequest, Sampling
from caopd.rollouts.vllm.files import Written
from caopd.rollouts.vllm.placement import Place
from caopd.vllm_host.host import Sampled

_LARGEST_SEED = 2**62
"""vLLM adds the rollout's index to the seed of its group and takes 63 bits."""


Way = Literal["files", "handles", "network", "kept"]
"""How weights reach a vLLM: in files, by handles to GPU memory, over the network from GPU to GPU, or not at all: it
keeps those under an adapter."""


class Delivery(NamedTuple):
    """A policy's weights, as they are handed to a vLLM.

    Attributes:
        files: Where they are; None where they came by :meth:`Backend.receive`, or it keeps what it has.
        adapter: The weights of a LoRA adapter that travels on its own; empty without.
    """

    files: Written | None
    adapter: dict[str, Tensor]


class Backend(Protocol):
    """A running vLLM, or several servers, for one process. Methods raise EngineDiedError where it can be restarted."""

    def start(self, policy: LanguageModel, place: Place) -> None:
        """Prepare for a model's architecture; the weights follow by :meth:`load`.

        Args:
            policy: A model of that architecture.
            place: What it gets of its machine.
        """
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it computes in; known after ``start``."""
        ...

    @property
    def max_length(self) -> int:
        """Length, in tokens, of the longest prompt plus completion; known after ``start``."""
        ...

    def takes(self, policy: LanguageModel) -> Way:
        """Return how it takes a policy's weights, beside those of an adapter that travels on its own."""
        ...

    def folder(self, policy: LanguageModel) -> str:
        """Return the folder in which it reads a policy's weights that come in files."""
        ...

    def receive(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take weights by handles or over the network; they are in use after the :meth:`load` that follows."""
        ...

    def load(self, policy: LanguageModel, delivery: Delivery, version: int) -> None:
        """Take over weights, forget what was computed with earlier ones, and remember the version."""
        ...

    def sample(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling, stops: Sequence[int]
    ) -> list[list[Sampled]]:
        """Sample completions; those of a request stand together."""
        ...

    def version(self) -> int:
        """Return the version of the weights in use, as the workers themselves say it."""
        ...

    def rest(self) -> None:
        """Give memory back; nothing is sampled before the next ``load``."""
        ...

    def close(self) -> None:
        """End everything that was started. Never raises."""
        ...


def sampling_arguments(
    request: RolloutRequest, num_rollouts: int, sampling: Sampling, stops: Sequence[int]
) -> dict[str, object]:
    """Return a request's settings under the names of vLLM's SamplingParams and of its HTTP interface alike.

    A server fills whatever a request leaves open from the model's generation config, unless it was started without.

    Args:
        request: The prompt and the seed of its group.
        num_rollouts: G, the number of completions per prompt.
        sampling: Temperature, top-p, top-k and length limit.
        stops: The only ids that end a completion.
    """
    return {
        # vLLM refuses to sample the same greedy completion more than once.
        "n": num_drawn(num_rollouts, sampling),
        "seed": request.seed % _LARGEST_SEED,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": sampling.max_new_tokens,
        "logprobs": 0,  # the log-probability of the sampled token alone
        "ignore_eos": True,
        "stop_token_ids": list(stops),
    }


def num_drawn(num_rollouts: int, sampling: Sampling) -> int:
    """Return how many completions of a prompt vLLM draws: greedily one stands for all, which are the same."""
    return 1 if sampling.temperature == 0 else num_rollouts
