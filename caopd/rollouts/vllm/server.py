"""Works with vLLM servers that run elsewhere, over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from caopd.errors import ConfigError, EngineDiedError, RolloutError
from caopd.models.language_model import LanguageModel
from caopd.rollouts.base import RolloutRequest, Sampling
from caopd.rollouts.progress import tell_progress
from caopd.rollouts.vllm.base import Delivery, Way, sampling_arguments
from caopd.rollouts.vllm.files import parts, roomy_directory, shared_places
from caopd.rollouts.vllm.guard import Guard
from caopd.rollouts.vllm.http import ServerSession
from caopd.rollouts.vllm.network import NetworkTransfer
from caopd.rollouts.vllm.options import ServerOptions, VLLMOptions
from caopd.rollouts.vllm.placement import Place
from caopd.rollouts.vllm.pool import ServerPool
from caopd.rollouts.vllm.sending import sent
from caopd.vllm_host.folders import clear_dead
from caopd.vllm_host.host import Sampled
from caopd.vllm_host.keeper import SHAPING


class VLLMServers:
    """Spreads prompts over servers that hold the same policy.

    A server runs with ``--worker-extension-cls caopd.vllm_host.keeper.WeightKeeper`` and ``VLLM_SERVER_DEV_MODE=1``, so
    that it takes weights. A request that finds no server is sent again with growing waits. A server that is lost all
    the same is left out, its prompts are drawn by the others, and it is asked again when there are new weights; where
    none is left, an error names them.

    Args:
        servers: Addresses of the servers, and how they are asked.
        options: Only ``dtype`` is used: weights are converted to it. All else is the servers' own setting.
    """

    def __init__(self, servers: ServerOptions, options: VLLMOptions) -> None:
        self._servers = servers
        self._options = options
        self._http = ServerSession(servers)
        self._pool = ServerPool(servers, self._http)
        self._models: dict[str, dict[str, Any]] = {}
        self._guard: Guard | None = None
        self._policy: LanguageModel | None = None
        self._network: NetworkTransfer | None = None
        if servers.transfer == "nccl":
            assert servers.weights_address is not None
            self._network = NetworkTransfer(self._http, servers.weights_address)

    def start(self, policy: LanguageModel, place: Place) -> None:
        """Ask the servers for their models, and whether they take weights; at the first start every one must answer.

        Raises:
            ConfigError: Weights cannot be written into ``weights_directory``, or a server holds another architecture.
            RolloutError: One does not answer, refuses the API key, or was started without what it needs.
        """
        places = shared_places()
        if self._servers.weights_address is None:
            directory = self._servers.weights_directory
            if not os.access(directory, os.W_OK | os.X_OK):
                raise ConfigError(
                    f"Expected `weights_directory` of `servers` to be a folder that this process can write into, but "
                    f"got {directory!r}: create it, or name another one that the servers see under the same path."
                )
            places = (*places, directory)
        self._policy = policy
        self._dtype = policy.dtype if self._options.dtype == "auto" else getattr(torch, self._options.dtype)
        if self._models:
            self._pool.each(self._check)
        else:
            for url in self._servers.urls:
                self._check(url)
        clear_dead(*places)
        self._guard = Guard(places)

    def _check(self, url: str) -> None:
        """Ask a server for its model, and whether it takes weights; where they come over the network, open its way.

        Raises:
            ConfigError: It holds another architecture.
            RolloutError: It does not answer, or cannot take weights.
        """
        assert self._policy is not None
        seconds = self._servers.start_seconds
        model = self._http.call("GET", url, "/v1/models", seconds)["data"][0]
        described = json.loads(self._worker(url, "describe_model", seconds=seconds))
        wrong = _differences(described, self._policy)
        if wrong:
            raise ConfigError(
                f"Expected the vLLM server {url} to hold the policy's architecture, but that of {model['id']!r} has "
                f"{'; '.join(wrong)}: start it with `--model` and the model that is trained, or correct `servers.urls`."
            )
        self._models[url] = model
        if self._network is not None:
            self._network.open(url, len(self._workers(url, "policy_version", seconds=seconds)), self._policy.device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that weights are converted to."""
        return self._dtype

    @property
    def max_length(self) -> int:
        """Length, in tokens, of the longest prompt plus completion that every server takes."""
        return min(int(self._models[url]["max_model_len"]) for url in self._pool.urls)

    def takes(self, policy: LanguageModel) -> Way:
        """Return that weights come in files, or over the network where the servers' options say so."""
        return "files" if self._network is None else "network"

    def folder(self, policy: LanguageModel) -> str:
        """Return the folder that the servers read, or one from which weights are sent."""
        if self._servers.weights_address is None:
            return self._servers.weights_directory
        return roomy_directory(sum(weight.numel() for weight in policy.parameters()) * self._dtype.itemsize)

    def receive(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Send weights over the network; a server that was lost and answers again gets them, too."""
        assert self._network is not None
        self._pool.rejoin(self._check)
        self._pool.each(self._network.begin)
        for part in parts(weights):
            self._pool.each(partial(self._network.send, weights=part))

    def load(self, policy: LanguageModel, delivery: Delivery, version: int) -> None:
        """Let every server use the weights that it was sent, or read them; then one that was lost does so, too."""

        def stamp(url: str) -> None:
            self._worker(url, "stamp_policy", str(version))
            if not self._http.call("POST", url, "/reset_prefix_cache")["success"]:
                raise RolloutError(
                    f"The vLLM server {url} could not forget its prefix cache: is it shared with others?"
                )

        def take(url: str) -> None:
            self._worker(url, "take_policy", place, str(num_weights))
            stamp(url)

        if self._network is not None:
            self._pool.each(self._network.finish)
            self._pool.each(stamp)
            return
        assert delivery.files is not None
        directory, num_weights = delivery.files
        address = self._servers.weights_address
        self._pool.rejoin(self._check)
        with nullcontext(str(directory)) if address is None else sent(directory, address) as place:
            self._pool.each(take)

    def sample(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling, stops: Sequence[int]
    ) -> list[list[Sampled]]:
        """Sample completions, each server those of the next prompt when it is free."""

        def sample_one(url: str, number: int) -> list[Sampled]:
            body = {
                "model": self._models[url]["id"],
                "prompt": list(requests[number].prompt_ids),
                "return_token_ids": True,
                **sampling_arguments(requests[number], num_rollouts, sampling, stops),
            }
            choices = self._http.call("POST", url, "/v1/completions", body=body)["choices"]
            choices.sort(key=lambda choice: choice["index"])
            return [Sampled(choice["token_ids"], choice["logprobs"]["token_logprobs"]) for choice in choices]

        def tell(done: int) -> None:
            tell_progress(done * num_rollouts, len(requests) * num_rollouts)

        return self._pool.share(sample_one, len(requests), tell)

    def version(self) -> int:
        """Return the version that all servers hold.

        Raises:
            EngineDiedError: They hold different versions, as after the restart of one: weights must be sent again.
        """
        held = self._pool.each(lambda url: self._worker(url, "policy_version"))
        if len(set(held.values())) > 1:
            raise EngineDiedError(f"the vLLM servers hold different policies, versions {held}: one was restarted")
        return int(next(iter(held.values())))

    def rest(self) -> None:
        """Do nothing: servers keep their memory."""

    def close(self) -> None:
        """Close the connections; the servers run on."""
        if self._network is not None:
            self._network.close()
        self._http.close()
        if self._guard is not None:
            self._guard.close()
        self._guard = None

    def _worker(self, url: str, method: str, *arguments: str, seconds: float | None = None) -> str:
        """Call a method of every worker of a server and return the answer, on which they must agree."""
        results = set(self._workers(url, method, *arguments, seconds=seconds))
        if len(results) != 1:
            raise RolloutError(f"Expected the workers of {url} to agree on `{method}`, but got {sorted(results)}.")
        return results.pop()

    def _workers(self, url: str, method: str, *arguments: str, seconds: float | None = None) -> list[str]:
        """Call a method of every worker of a server and return their answers."""
        body = {"method": method, "args": arguments}
        answers: list[str] = self._http.call("POST", url, "/collective_rpc", seconds, body)["results"]
        return answers


def _differences(described: Mapping[str, Any], policy: LanguageModel) -> list[str]:
    """Return how a server's model differs from the policy in what decides the names and shapes of weights."""
    config = policy.hf.config.get_text_config()
    mine = {"architectures": [type(policy.hf).__name__], **{name: getattr(config, name, None) for name in SHAPING}}
    return [
        f"`{name}` {described[name]!r} in place of {value!r}"
        for name, value in mine.items()
        if value is not None and described[name] is not None and described[name] != value
    ]
