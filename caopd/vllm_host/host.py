"""Holds a ``vllm.LLM`` and does what the training process asks, with picklable arguments and answers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from caopd.errors import ConfigError, EngineDiedError, RolloutError
from caopd.vllm_host.keeper import EXTENSION

_MOST_CHARACTERS = 600
"""Of a message of vLLM's."""


class Sampled(NamedTuple):
    """One completion: token ids, the stop token included, and their log-probabilities (nats)."""

    token_ids: list[int]
    logprobs: list[float]


class Progress(NamedTuple):
    """How many completions of a call of :meth:`VLLMHost.sample` are done."""

    done: int


class Weights(NamedTuple):
    """A folder of safetensors files, and how many weights it holds."""

    directory: str
    number: int


class Adapter(NamedTuple):
    """A LoRA adapter in peft's format: a number that no earlier one had, and its folder."""

    number: int
    directory: str


class VLLMHost:
    """A vLLM that starts with dummy weights: every weight that it uses came from the policy.

    Attributes:
        llm: The ``vllm.LLM``, None before ``start``.

    Args:
        on_progress: Told while completions are sampled.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self.llm: Any = None
        self._on_progress = on_progress
        self._lora: Any = None
        self._asleep = False
        self._linked = False
        self._updating = False

    def start(self, directory: str, arguments: dict[str, Any]) -> int:
        """Start vLLM; takes seconds to tens of seconds.

        Args:
            directory: Holds the config of the model.
            arguments: Further arguments of ``vllm.LLM``.

        Returns:
            The length, in tokens, of the longest prompt plus completion.

        Raises:
            EngineDiedError: vLLM does not start; the message is vLLM's own.
        """
        from vllm import LLM

        fixed = {"load_format": "dummy", "skip_tokenizer_init": True, "generation_config": "vllm"}
        try:
            self.llm = LLM(directory, worker_extension_cls=EXTENSION, **fixed, **arguments)
        except Exception as error:  # whatever a part of vLLM raises
            raise EngineDiedError(f"{type(error).__name__}: {str(error).strip()[:_MOST_CHARACTERS]}") from error
        return int(self.llm.model_config.max_model_len)

    def wake(self) -> None:
        """Take back the memory that weights need, where it was given back."""
        if self._asleep:
            self.llm.wake_up(tags=["weights"])

    def take_handles(self, update: dict[str, Any]) -> None:
        """Take over some weights from another process's GPU memory by vLLM's own transfer API.

        Args:
            update: Names, types, shapes and CUDA IPC handles.
        """
        if not self._linked:
            self.llm.init_weight_transfer_engine({"init_info": {"packed": False}})
            self._linked = True
        if not self._updating:
            self.llm.start_weight_update()
            self._updating = True
        self.llm.update_weights({"update_info": update})

    def take(self, weights: Weights | None, adapter: Adapter | None, version: int) -> None:
        """Take over a policy's weights and forget what was computed with earlier ones.

        Args:
            weights: The weights; None where they came by :meth:`take_handles`, or to keep those under an adapter.
            adapter: LoRA adapter; None for a policy without.
            version: Version of the policy's weights.
        """
        if self._updating:
            self.llm.finish_weight_update()
            self._updating = False
        self.wake()
        if weights is not None:
            self.llm.collective_rpc("take_policy", args=(weights.directory, str(weights.number)))
        self._take_adapter(adapter)
        self.llm.collective_rpc("stamp_policy", args=(str(version),))
        if self._asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        self._forget_prefixes()

    def _take_adapter(self, adapter: Adapter | None) -> None:
        from vllm.lora.request import LoRARequest

        if self._lora is not None:
            self.llm.llm_engine.remove_lora(self._lora.lora_int_id)
            self._lora = None
        if adapter is None:
            return
        self._lora = LoRARequest(f"policy-{adapter.number}", adapter.number, adapter.directory)
        self.llm.llm_engine.add_lora(self._lora)

    def _forget_prefixes(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise RolloutError("vLLM could not forget its prefix cache: it would use stale keys and values.")

    def sample(self, prompts: Sequence[Sequence[int]], settings: Sequence[dict[str, Any]]) -> list[list[Sampled]]:
        """Sample completions; a prompt's keys and values are computed once and shared by its group.

        Args:
            prompts: Token ids of the prompts.
            settings: Arguments of vLLM's SamplingParams for each prompt.
        """
        import torch
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.platforms import current_platform

        try:
            parameters = [SamplingParams(detokenize=False, **setting) for setting in settings]
        except ValueError as error:
            raise ConfigError(f"vLLM does not sample with these sampling settings: {error}") from error
        tokens = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        # On a CPU vLLM would compile helpers of its sampler, which fails on a machine without a C++ compiler.
        with torch.compiler.set_stance("force_eager") if current_platform.is_cpu() else nullcontext():
            outputs = self.llm.generate(tokens, parameters, use_tqdm=_bar(self._on_progress), lora_request=self._lora)
        return [[_sampled(completion) for completion in output.outputs] for output in outputs]

    def version(self) -> int:
        """Return the version of the policy that all workers hold; -1 before the first.

        Raises:
            RolloutError: They hold different versions.
        """
        versions = set(self.llm.collective_rpc("policy_version"))
        if len(versions) > 1:
            raise RolloutError(
                f"Expected vLLM's workers to hold one policy, but they hold versions {sorted(versions)}."
            )
        return int(versions.pop())

    def rest(self) -> None:
        """Give the GPU's memory back; all weights must be sent again afterwards."""
        if not self._asleep:
            self.llm.sleep(level=2)
            self._asleep = True

    def close(self) -> None:
        """End vLLM's processes and its process group."""
        llm, self.llm, self._lora = self.llm, None, None
        self._asleep = self._linked = self._updating = False
        if llm is not None:
            from vllm.distributed import cleanup_dist_env_and_memory

            llm.llm_engine.engine_core.shutdown()
            cleanup_dist_env_and_memory()


def _bar(on_progress: Callable[[Progress], None]) -> Callable[..., Any]:
    """Return what vLLM makes its progress bar with: one that draws nothing, and tells how many completions are done."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]  # tqdm is not typed
        def __init__(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (tqdm's own signature)
            # One that TQDM_DISABLE switches off knows no time, by which vLLM divides.
            told = {**keywords, "disable": False, "file": io.StringIO(), "mininterval": math.inf}
            super().__init__(*arguments, **told)

        def update(self, n: int = 1) -> None:
            super().update(n)
            if self.iterable is None:  # it is not that of requests which are handed in
                on_progress(Progress(int(self.n)))

    return Bar


def _sampled(completion: Any) -> Sampled:  # noqa: ANN401 (vLLM's CompletionOutput)
    if completion.finish_reason not in ("stop", "length"):
        raise RolloutError(f"Expected vLLM to finish every completion, but one ended by {completion.finish_reason!r}.")
    ids = list(completion.token_ids)
    return Sampled(ids, [entry[token].logprob for token, entry in zip(ids, completion.logprobs, strict=True)])
