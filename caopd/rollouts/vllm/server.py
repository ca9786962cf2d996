"""Works with vLLM servers that run elsewhere, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from caopd.errors import ConfigError, EngineDiedError, RolloutError
from caopd.models.language_model import LanguageModel
from caopd.rollouts.base import RolloutRequest, Sampling
from caopd.rollouts.progress import tell_progress
from caopd.rollouts.vllm.base import sampling_arguments
from caopd.rollouts.vllm.files import shared_places, written
from caopd.rollouts.vllm.guard import Guard
from caopd.rollouts.vllm.http import ServerSession
from caopd.rollouts.vllm.options import ServerOptions, VLLMOptions
from caopd.vllm_host.folders import clear_dead
from caopd.vllm_host.host import Sampled


class VLLMServers:
    """Spreads prompts over servers that hold the same policy.

    A server runs with ``--worker-extension-cls caopd.vllm_host.keeper.WeightKeeper`` and ``VLLM_SERVER_DEV_MODE=1``, so
    that it takes weights. A request that finds no server is sent again with growing waits, then ends in an error that
    names the server.

    Args:
        servers: Addresses of the servers, and how they are asked.
        options: Only ``dtype`` is used: weights are converted to it. All else is the servers' own setting.
    """

    def __init__(self, servers: ServerOptions, options: VLLMOptions) -> None:
        self._servers = servers
        self._options = options
        self._http = ServerSession(servers)
        self._models: list[dict[str, Any]] = []
        self._guard: Guard | None = None

    def start(self, policy: LanguageModel) -> None:
        """Ask every server for its model, and whether it takes weights.

        Raises:
            ConfigError: Weights cannot be written into ``weights_directory``.
            RolloutError: One does not answer, refuses the API key, or was started without what it needs.
        """
        directory = self._servers.weights_directory
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(
                f"Expected `weights_directory` of `servers` to be a folder that this process can write into, but got "
                f"{directory!r}: create it, or name another one that the servers see under the same path."
            )
        self._dtype = policy.dtype if self._options.dtype == "auto" else getattr(torch, self._options.dtype)
        seconds = self._servers.start_seconds
        self._models = [self._http.call("GET", url, "/v1/models", seconds)["data"][0] for url in self._servers.urls]
        for url in self._servers.urls:
            self._worker(url, "policy_version", seconds=seconds)
        places = (*shared_places(), directory)
        clear_dead(*places)
        self._guard = Guard(places)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that weights are converted to."""
        return self._dtype

    @property
    def max_length(self) -> int:
        """Length, in tokens, of the longest prompt plus completion that every server takes."""
        return min(int(model["max_model_len"]) for model in self._models)

    def load(self, policy: LanguageModel, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Write the weights once and let every server read them."""
        with written(weights, self._servers.weights_directory) as (directory, num_weights):
            for url in self._servers.urls:
                self._worker(url, "take_policy", str(directory), str(num_weights))
        for url in self._servers.urls:
            self._worker(url, "stamp_policy", str(version))
            if not self._http.call("POST", url, "/reset_prefix_cache")["success"]:
                raise RolloutError(
                    f"The vLLM server {url} could not forget its prefix cache: is it shared with others?"
                )

    def sample(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling, stops: Sequence[int]
    ) -> list[list[Sampled]]:
        """Sample completions, request by request on the servers in turn."""
        urls = self._servers.urls

        def sample_one(index: int) -> list[Sampled]:
            turn, request = index % len(urls), requests[index]
            body = {
                "model": self._models[turn]["id"],
                "prompt": list(request.prompt_ids),
                "return_token_ids": True,
                **sampling_arguments(request, num_rollouts, sampling, stops),
            }
            choices = self._http.call("POST", urls[turn], "/v1/completions", body=body)["choices"]
            choices.sort(key=lambda choice: choice["index"])
            return [Sampled(choice["token_ids"], choice["logprobs"]["token_logprobs"]) for choice in choices]

        sampled = []
        with ThreadPoolExecutor(self._servers.concurrency * len(urls)) as pool:
            for group in pool.map(sample_one, range(len(requests))):
                sampled.append(group)
                tell_progress(len(sampled) * num_rollouts, len(requests) * num_rollouts)
        return sampled

    def version(self) -> int:
        """Return the version that all servers hold.

        Raises:
            EngineDiedError: They hold different versions, as after the restart of one: weights must be sent again.
        """
        held = {url: self._worker(url, "policy_version") for url in self._servers.urls}
        if len(set(held.values())) > 1:
            raise EngineDiedError(f"the vLLM servers hold different policies, versions {held}: one was restarted")
        return int(next(iter(held.values())))

    def rest(self) -> None:
        """Do nothing: servers keep their memory."""

    def close(self) -> None:
        """Close the connections; the servers run on."""
        self._http.close()
        if self._guard is not None:
            self._guard.close()
        self._guard = None

    def _worker(self, url: str, method: str, *arguments: str, seconds: float | None = None) -> str:
        """Call a method of every worker of a server and return the answer, on which they must agree."""
        body = {"method": method, "args": arguments}
        answer = self._http.call("POST", url, "/collective_rpc", seconds, body)
        results: set[str] = set(answer["results"])
        if len(results) != 1:
            raise RolloutError(f"Expected the workers of {url} to agree on `{method}`, but got {sorted(results)}.")
        return results.pop()
