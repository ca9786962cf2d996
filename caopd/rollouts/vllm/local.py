"""Runs a vLLM on this machine, in a child process or in this one."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from caopd.errors import ConfigError
from caopd.models.language_model import LanguageModel
from caopd.rollouts.base import RolloutRequest, Sampling
from caopd.rollouts.progress import tell_progress
from caopd.rollouts.vllm.base import Delivery, Way, num_drawn, sampling_arguments
from caopd.rollouts.vllm.child import VLLMChild
from caopd.rollouts.vllm.files import handles, roomy_directory, shared_places
from caopd.rollouts.vllm.guard import Guard
from caopd.rollouts.vllm.options import VLLMOptions
from caopd.rollouts.vllm.placement import Place
from caopd.vllm_host.folders import OwnedFolder, clear_dead
from caopd.vllm_host.host import Adapter, Progress, Sampled, VLLMHost, Weights

_GIB = 2**30
_CPU_CACHE_GIB = 2.0
_CPU_BLOCK = 32
"""Tokens in a block of the key-value cache on a CPU, the fewest that vLLM takes there. Its default is 128, and only
whole blocks are shared: every rollout of a shorter prompt would read it anew."""
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of LoRA adapters that vLLM can reserve room for."""
_ADAPTER_FILE = "adapter_model.safetensors"
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
_GPUS = "CUDA_VISIBLE_DEVICES"
_CORES = "VLLM_CPU_OMP_THREADS_BIND"
_DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
"""Environment variables for vLLM, unless the user has set them."""


class LocalVLLM:
    """Writes what vLLM needs into files in memory and calls a ``VLLMHost``.

    Args:
        options: Options with which vLLM is started.
        in_process: Run in this process instead of a child.

    Raises:
        ConfigError: If vLLM is not installed.
    """

    _host = VLLMHost

    def __init__(self, options: VLLMOptions, in_process: bool = False) -> None:
        if find_spec("vllm") is None:
            raise ConfigError(
                "VLLMEngine needs vLLM, which is not installed: pip install 'caopd[vllm]' (without a GPU: see "
                "docs/rollouts.md), or set `data.engine` to `caopd.rollouts.TransformersEngine`."
            )
        self.options = options
        self.in_process = in_process
        self._child: VLLMChild | None = None
        self._call: Callable[..., Any] | None = None
        self._adapter: Adapter | None = None
        self._base_of: LanguageModel | None = None
        self._folder: OwnedFolder | None = None
        self._guard: Guard | None = None
        self._num_drawn, self._num_sampled = 0, 0

    def start(self, policy: LanguageModel, place: Place) -> None:
        """Start a vLLM of the policy's architecture, which takes seconds to minutes.

        Args:
            policy: A model of that architecture.
            place: What it gets of this machine: on GPUs those from the policy's on, else a share of the cores.

        Raises:
            ConfigError: There is a process group already, with which one in this process does not work.
            EngineDiedError: It does not start; the message holds vLLM's own words.
        """
        if self.in_process and distributed.is_initialized():
            raise ConfigError(
                "Expected no process group for `mode: in_process` of VLLMEngine, because vLLM makes its own, but there "
                "is one: processes train together, or another vLLM runs in this process. Set `mode: child`."
            )
        self._on_gpu = policy.device.type == "cuda"
        self._dtype = policy.dtype if self.options.dtype == "auto" else getattr(torch, self.options.dtype)
        arguments = self._arguments(policy)
        clear_dead(*shared_places())
        self._folder = OwnedFolder(tempfile.gettempdir(), "vllm")
        policy.hf.config.save_pretrained(self._folder.path)
        defaults = _DEFAULTS | self._cores(place)
        environment = {name: os.environ.get(name, value) for name, value in defaults.items()} | _ENVIRONMENT
        if self.in_process:
            os.environ.update(environment)
            self._call = _caller(self._host(self._tell))
        else:
            if self._on_gpu:
                environment[_GPUS] = place.gpus(policy.device.index or 0, self.options.tensor_parallel_size)
            self._child = VLLMChild(self._folder.path / "vllm.log", environment, self.options, self._tell)
            self._call = self._child.call
        self._guard = Guard(shared_places(), None if self._child is None else self._child.process_id)
        self._max_length = int(self._do("start", str(self._folder.path), arguments))

    def _cores(self, place: Place) -> dict[str, str]:
        """Return the setting by which vLLMs on one CPU take different cores; each would take all, or the same one."""
        alone = self._on_gpu or place.total == 1 or self.options.tensor_parallel_size > 1
        return {} if alone else {_CORES: place.cores()}

    def _arguments(self, policy: LanguageModel) -> dict[str, Any]:
        options = self.options
        cache = options.kv_cache_gib or (None if self._on_gpu else _CPU_CACHE_GIB)
        arguments = {
            "dtype": str(self._dtype).removeprefix("torch."),
            "tensor_parallel_size": options.tensor_parallel_size,
            "gpu_memory_utilization": options.memory_share,
            "kv_cache_memory_bytes": None if cache is None else int(cache * _GIB),
            "max_num_seqs": options.max_num_seqs,
            "max_model_len": options.max_model_len,
            "enforce_eager": not self._on_gpu if options.enforce_eager is None else options.enforce_eager,
            "enable_sleep_mode": self._sleeps,
        }
        if not self._on_gpu:
            # For a partly read prompt vLLM rewinds a seeded generator, which a CPU's generator cannot do.
            arguments["enable_chunked_prefill"] = False
            arguments["block_size"] = _CPU_BLOCK
        if self._by_handles:
            arguments["weight_transfer_config"] = {"backend": "ipc"}
        if options.lora == "adapter" and policy.lora_rank is not None:
            arguments |= {"enable_lora": True, "max_lora_rank": _room_for(policy.lora_rank)}
        return arguments | options.arguments

    @property
    def _sleeps(self) -> bool:
        return self._on_gpu and self.options.sleep

    @property
    def _by_handles(self) -> bool:
        # A process cannot open its own handles.
        possible = self._on_gpu and self.options.tensor_parallel_size == 1 and not self.in_process
        return self.options.transfer == "handles" or (self.options.transfer == "auto" and possible)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that vLLM computes in."""
        return self._dtype

    @property
    def max_length(self) -> int:
        """Length, in tokens, of the longest prompt plus completion."""
        return self._max_length

    def takes(self, policy: LanguageModel) -> Way:
        """Return how it takes a policy's weights; those under an adapter are sent only once."""
        if self._base_of is policy:
            return "kept"
        return "handles" if self._by_handles else "files"

    def folder(self, policy: LanguageModel) -> str:
        """Return a folder in memory, where there is room."""
        return roomy_directory(sum(weight.numel() for weight in policy.parameters()) * self._dtype.itemsize)

    def receive(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take weights over from the memory of the GPU that both processes see."""
        self._do("wake")
        for update in handles(weights):
            self._do("take_handles", update)

    def load(self, policy: LanguageModel, delivery: Delivery, version: int) -> None:
        """Take over weights."""
        files = None if delivery.files is None else Weights(str(delivery.files.directory), delivery.files.num_weights)
        self._do("take", files, self._written_adapter(policy, delivery.adapter), version)
        self._base_of = policy if delivery.adapter else None

    def _written_adapter(self, policy: LanguageModel, weights: dict[str, Tensor]) -> Adapter | None:
        """Write the adapter's folder, and remove the previous one, which vLLM has read; None without an adapter."""
        if not weights:
            return None
        assert self._folder is not None
        number = 1 if self._adapter is None else self._adapter.number + 1
        directory = self._folder.path / f"adapter-{number}"
        policy.hf.peft_config["default"].save_pretrained(directory)
        save_file({name: weight.contiguous() for name, weight in weights.items()}, directory / _ADAPTER_FILE)
        if self._adapter is not None:
            shutil.rmtree(self._adapter.directory)
        self._adapter = Adapter(number, str(directory))
        return self._adapter

    def sample(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling, stops: Sequence[int]
    ) -> list[list[Sampled]]:
        """Sample completions; those of a request stand together."""
        settings = [sampling_arguments(request, num_rollouts, sampling, stops) for request in requests]
        self._num_drawn = len(requests) * num_drawn(num_rollouts, sampling)
        self._num_sampled = len(requests) * num_rollouts
        sampled: list[list[Sampled]] = self._do("sample", [request.prompt_ids for request in requests], settings)
        return sampled

    def _tell(self, told: Progress) -> None:
        """Tell how far sampling has come; greedily, a completion stands for a whole group."""
        tell_progress(told.done * self._num_sampled / self._num_drawn, self._num_sampled)

    def version(self) -> int:
        """Return the version that all workers hold."""
        return int(self._do("version"))

    def rest(self) -> None:
        """Give the GPU's memory back; the weights come anew with the next ``load``."""
        if self._call is not None and self._sleeps:
            self._do("rest")
            self._base_of = None

    def close(self) -> None:
        """End vLLM's processes and remove its files."""
        if self._child is not None:
            self._child.close()
        elif self._call is not None:
            self._do("close")
        self._child = self._call = self._adapter = self._base_of = None
        if self._folder is not None:
            self._folder.remove()
        if self._guard is not None:
            self._guard.close()
        self._folder = self._guard = None

    def _do(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 (whatever the host's method returns)
        assert self._call is not None
        return self._call(method, *arguments)


def _room_for(rank: int) -> int:
    """Return the smallest rank that vLLM reserves room for and that is large enough.

    Raises:
        ConfigError: No such rank is large enough.
    """
    if rank > _LORA_RANKS[-1]:
        raise ConfigError(
            f"Expected `rank` of LoRA to be at most {_LORA_RANKS[-1]} where vLLM takes adapters on their own, but got "
            f"{rank}: set `lora: merged` in the engine's options, or lower the rank."
        )
    return min(room for room in _LORA_RANKS if room >= rank)


def _caller(host: VLLMHost) -> Callable[..., Any]:
    def call(method: str, *arguments: object) -> Any:  # noqa: ANN401 (whatever the host's method returns)
        with _state_kept():
            return getattr(host, method)(*arguments)

    return call


@contextmanager
def _state_kept() -> Iterator[None]:
    """Restore this process's random state and thread settings, which a vLLM in the ``with`` block changes."""
    python_state, set_num_threads, num_threads = random.getstate(), torch.set_num_threads, torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    random.setstate(python_state)
    torch.set_num_threads = set_num_threads
    torch.set_num_threads(num_threads)
