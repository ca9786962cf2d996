"""A vLLM on this machine: in a child process, or in this one."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from caopd.errors import ConfigError, EngineDiedError, RolloutError
from caopd.models.language_model import LanguageModel
from caopd.models.weights import is_adapter
from caopd.rollouts.base import RolloutRequest, Sampling
from caopd.rollouts.vllm_base import Drawn, sampling_arguments
from caopd.rollouts.vllm_files import memory_directory, written
from caopd.rollouts.vllm_options import VLLMOptions
from caopd.vllm_worker import EXTENSION

_GIB = 2**30
_CPU_CACHE_GIB = 2.0
_SMALLEST_LORA_RANK = 8
_ADAPTER_FILE = "adapter_model.safetensors"
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
"""Unless the user has set them."""


class LocalVLLM:
    """Holds a ``vllm.LLM`` that starts with dummy weights: every weight that it uses came from the policy.

    Args:
        options: How it is started.
        in_process: Run in this process instead of a child.

    Raises:
        ConfigError: If vLLM is not installed.
    """

    def __init__(self, options: VLLMOptions, in_process: bool = False) -> None:
        if find_spec("vllm") is None:
            raise ConfigError(
                "VLLMEngine needs vLLM, which is not installed: pip install 'caopd[vllm]' (without a GPU: see "
                "docs/rollouts.md), or set `data.engine` to `caopd.rollouts.TransformersEngine`."
            )
        self.options = options
        self.in_process = in_process
        self._llm: Any = None
        self._adapter: Any = None
        self._asleep = False
        self._directory = Path()

    def start(self, policy: LanguageModel) -> None:
        """Start a vLLM of the policy's architecture; takes tens of seconds."""
        if self.in_process and distributed.is_initialized():
            raise ConfigError(
                "Expected a run of one process for `mode: in_process` of VLLMEngine, but processes train together "
                "here, and vLLM's own process group would break theirs. Set `mode: child`."
            )
        self._on_gpu = policy.device.type == "cuda"
        self._dtype = policy.dtype if self.options.dtype == "auto" else getattr(torch, self.options.dtype)
        self._directory = Path(tempfile.mkdtemp(prefix="caopd-vllm-"))
        policy.hf.config.save_pretrained(self._directory)
        environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0" if self.in_process else "1"}
        environment["VLLM_RPC_BASE_PATH"] = str(self._directory)  # its sockets go with the folder
        environment |= {name: os.environ.get(name, value) for name, value in _QUIET.items()}
        with _environment(environment), _own_state(self.in_process):
            from vllm import LLM

            try:
                self._llm = LLM(str(self._directory), **self._arguments(policy))
            except (RuntimeError, ValueError) as error:
                self.close()
                raise RolloutError(
                    f"Expected vLLM to start with {self._arguments(policy)}, but it did not: {str(error).strip()[:600]}"
                ) from error

    def _arguments(self, policy: LanguageModel) -> dict[str, Any]:
        options = self.options
        cache = options.kv_cache_gib or (None if self._on_gpu else _CPU_CACHE_GIB)
        return {
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "worker_extension_cls": EXTENSION,
            "dtype": str(self._dtype).removeprefix("torch."),
            "tensor_parallel_size": options.tensor_parallel_size,
            "gpu_memory_utilization": options.memory_share,
            "kv_cache_memory_bytes": None if cache is None else int(cache * _GIB),
            "max_num_seqs": options.max_num_seqs,
            "max_model_len": options.max_model_len,
            "enforce_eager": not self._on_gpu if options.enforce_eager is None else options.enforce_eager,
            "enable_sleep_mode": self._on_gpu and options.sleep,
            **self._lora_arguments(policy),
            **options.arguments,
        }

    def _lora_arguments(self, policy: LanguageModel) -> dict[str, Any]:
        if self.options.lora == "merged" or policy.lora_rank is None:
            return {}
        return {"enable_lora": True, "max_lora_rank": max(policy.lora_rank, _SMALLEST_LORA_RANK)}

    @property
    def dtype(self) -> torch.dtype:
        """What vLLM computes in."""
        return self._dtype

    @property
    def max_length(self) -> int:
        """Longest prompt plus completion, tokens."""
        return int(self._llm.model_config.max_model_len)

    def load(self, policy: LanguageModel, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over weights through files in memory; of adapters, the base is sent once."""
        with _translated():
            if self._asleep:
                self._llm.wake_up(tags=["weights"])
            adapter: dict[str, Tensor] = {}
            rest = _without_adapter(weights, adapter)
            if self._adapter is None:
                with written(rest, memory_directory()) as directory:
                    self._llm.collective_rpc("take_policy", args=(str(directory), str(version)))
            else:
                deque(rest, maxlen=0)
            if adapter:
                self._send_adapter(policy, adapter, version)
            if self._asleep:
                self._llm.wake_up(tags=["kv_cache"])
                self._asleep = False
            if not self._llm.reset_prefix_cache():
                raise RolloutError("vLLM could not forget its prefix cache: it would use stale keys and values.")

    def _send_adapter(self, policy: LanguageModel, adapter: dict[str, Tensor], version: int) -> None:
        from vllm.lora.request import LoRARequest

        directory = self._directory / f"adapter-{version}"
        policy.hf.peft_config["default"].save_pretrained(directory)
        save_file({name: weight.contiguous() for name, weight in adapter.items()}, directory / _ADAPTER_FILE)
        old, self._adapter = self._adapter, LoRARequest(f"policy-{version}", version + 1, str(directory))
        if old is not None:
            self._llm.llm_engine.remove_lora(old.lora_int_id)
            shutil.rmtree(old.lora_path, ignore_errors=True)
        self._llm.llm_engine.add_lora(self._adapter)
        self._llm.collective_rpc("stamp_policy", args=(str(version),))

    def draw(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling, stops: Sequence[int]
    ) -> list[list[Drawn]]:
        """Draw completions; the prompt's keys and values are computed once and shared by its group."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in requests]
        settings = [
            SamplingParams(**sampling_arguments(request, num_rollouts, sampling, stops), detokenize=False)
            for request in requests
        ]
        with _translated():
            outputs = self._llm.generate(prompts, settings, use_tqdm=False, lora_request=self._adapter)
        return [[_drawn(completion) for completion in output.outputs] for output in outputs]

    def version(self) -> int:
        """Return the version that all workers hold.

        Raises:
            RolloutError: If they hold different ones.
        """
        with _translated():
            versions = set(self._llm.collective_rpc("policy_version"))
        if len(versions) > 1:
            raise RolloutError(
                f"Expected vLLM's workers to hold one policy, but they hold versions {sorted(versions)}."
            )
        return int(versions.pop())

    def rest(self) -> None:
        """Give the GPU's memory back; the weights come anew with the next ``load``."""
        if self._on_gpu and self.options.sleep and self._llm is not None and not self._asleep:
            with _translated():
                self._llm.sleep(level=2)
            self._asleep = True

    def close(self) -> None:
        """End vLLM's processes and remove its files."""
        llm, self._llm, self._adapter, self._asleep = self._llm, None, None, False
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
            if self.in_process:
                from vllm.distributed import cleanup_dist_env_and_memory

                cleanup_dist_env_and_memory()
        shutil.rmtree(self._directory, ignore_errors=True)


def _without_adapter(weights: Iterable[tuple[str, Tensor]], adapter: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Pass weights on, but put those of a LoRA adapter into ``adapter``."""
    for name, weight in weights:
        if is_adapter(name):
            adapter[name] = weight.cpu()
        else:
            yield name, weight


def _drawn(completion: Any) -> Drawn:  # noqa: ANN401 (vLLM's CompletionOutput)
    if completion.finish_reason not in ("stop", "length"):
        raise RolloutError(f"Expected vLLM to finish every completion, but one ended by {completion.finish_reason!r}.")
    ids = list(completion.token_ids)
    return Drawn(ids, [entry[token].logprob for token, entry in zip(ids, completion.logprobs, strict=True)])


@contextmanager
def _translated() -> Iterator[None]:
    """Turn vLLM's word for an ended engine into ours."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError as error:
        raise EngineDiedError(f"vLLM's process has ended: {error}") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _own_state(in_process: bool) -> Iterator[None]:
    """Keep this process's random state and thread settings from a vLLM that starts inside it."""
    if not in_process:
        yield
        return
    python_state, set_num_threads, num_threads = random.getstate(), torch.set_num_threads, torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    random.setstate(python_state)
    torch.set_num_threads = set_num_threads
    torch.set_num_threads(num_threads)
