"""Settings of a vLLM that this process starts, and of servers that run elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from caopd.errors import ConfigError


@dataclass(frozen=True)
class VLLMOptions:
    """How a vLLM is started on this machine.

    Attributes:
        dtype: The dtype that vLLM computes in; ``auto`` is the dtype of the policy's parameters. Under mixed precision
            the parameters are float32: give ``bfloat16``.
        tensor_parallel_size: Number of GPUs that share the model: those of this machine, from the process's own on. As
            many processes sample with one vLLM, which the first of them holds.
        memory_share: Share of each GPU's memory that vLLM may take while it generates, weights included.
        kv_cache_gib: Size of the key-value cache in GiB; None is 2 on the CPU, on a GPU what ``memory_share`` leaves.
        max_num_seqs: Largest number of completions that are sampled at once.
        max_model_len: Length, in tokens, of the longest prompt plus completion; None is the model's own limit.
        enforce_eager: Whether to run without compiled graphs; None compiles on GPUs only.
        sleep: Whether to give GPU memory back while the student trains.
        transfer: How weights reach vLLM: ``handles`` to GPU memory that both processes see, by vLLM's own transfer API
            (one GPU); ``files`` in memory; ``auto`` takes handles where they work.
        lora: How LoRA adapters are sent: ``merged`` into the weights, or as an ``adapter`` on its own, which is less.
        start_seconds: Longest time that the child process may take to start: to import vLLM, from a slow disk too, and
            to make and compile the model. The default fits models of 32B parameters.
        timeout_seconds: Longest time to wait for any other answer of the child process, such as all completions of a
            round; then it is ended and started again. With ``in_process`` there is no limit.
        arguments: Further arguments of ``vllm.LLM``.

    Raises:
        ConfigError: A value outside what is described above.
    """

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    tensor_parallel_size: int = 1
    memory_share: float = 0.4
    kv_cache_gib: float | None = None
    max_num_seqs: int = 256
    max_model_len: int | None = None
    enforce_eager: bool | None = None
    sleep: bool = True
    transfer: Literal["auto", "files", "handles"] = "auto"
    lora: Literal["merged", "adapter"] = "merged"
    start_seconds: float = 1800.0
    timeout_seconds: float = 7200.0
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.memory_share <= 1:
            raise ConfigError(f"Expected `memory_share` of vLLM to be in (0, 1], but got {self.memory_share}.")
        _check_positive(self, "start_seconds", "timeout_seconds")
        if self.kv_cache_gib is not None and self.kv_cache_gib <= 0:
            raise ConfigError(f"Expected `kv_cache_gib` of vLLM to be positive or null, but got {self.kv_cache_gib}.")
        if self.transfer == "handles" and self.tensor_parallel_size > 1:
            raise ConfigError(
                "Expected `tensor_parallel_size: 1` with `transfer: handles` of vLLM, whose weights lie on one GPU, "
                f"but got {self.tensor_parallel_size}: set `transfer` to `files` or `auto`."
            )
        for name in ("tensor_parallel_size", "max_num_seqs", "max_model_len"):
            value = self.__dict__[name]
            if value is not None and value < 1:
                raise ConfigError(f"Expected `{name}` of vLLM to be at least 1, but got {value}.")


@dataclass(frozen=True)
class ServerOptions:
    """vLLM servers that run elsewhere; ``docs/rollouts.md`` shows how they are started.

    Attributes:
        urls: Addresses of the servers, for example ``[http://10.0.0.2:8000]``; prompts are spread over them.
        weights_directory: Folder in which weights are handed over; this process writes it and every server reads it.
            Only this user can read what is written there, or the folder's group where its setgid bit is set.
        weights_address: This machine as the servers reach it, such as ``10.0.0.1`` or ``10.0.0.1:8900``, to send them
            weights over HTTP where they see no folder of it; None hands weights over in ``weights_directory``.
        transfer: ``files`` hands weights over in ``weights_directory``, or over HTTP. ``nccl`` sends them from GPU to
            GPU by vLLM's own transfer, to servers that were started with ``--weight-transfer-config '{"backend":
            "nccl"}'``; it needs ``weights_address``, without a port.
        api_key_variable: Environment variable that holds the servers' API key, if they ask for one. The key is sent
            with every request and written nowhere.
        concurrency: Largest number of prompts that one server works on at a time.
        retries: How often a request is sent again that finds no server, or an overloaded one.
        backoff_seconds: Time to wait before the second retry; it doubles with every further one.
        start_seconds: Longest time to wait for a server's first answer, by which it says its model.
        timeout_seconds: Longest time to wait for any other answer: the completions of one prompt, or new weights. The
            default fits the weights of 32B parameters from a slow disk.
        silence_seconds: How long a server that works on something may not say that it lives; then it counts as lost.

    Raises:
        ConfigError: A value outside what is described above.
    """

    urls: list[str]
    weights_directory: str = "/dev/shm"
    weights_address: str | None = None
    transfer: Literal["files", "nccl"] = "files"
    api_key_variable: str = "VLLM_API_KEY"
    concurrency: int = 64
    retries: int = 5
    backoff_seconds: float = 1.0
    start_seconds: float = 60.0
    timeout_seconds: float = 1800.0
    silence_seconds: float = 60.0

    def __post_init__(self) -> None:
        wrong = [url for url in self.urls if not url.startswith(("http://", "https://"))]
        if not self.urls or wrong:
            raise ConfigError(
                f"Expected `urls` of the vLLM servers to be a list of http addresses, but got {wrong or self.urls}: "
                "give for example `urls: [http://localhost:8000]`."
            )
        if any("@" in url for url in self.urls):
            raise ConfigError(
                "Expected `urls` of the vLLM servers without a user or password, which would be written into the run's "
                "config: put the API key into the environment variable that `api_key_variable` names."
            )
        if self.transfer == "nccl" and (self.weights_address is None or ":" in self.weights_address):
            raise ConfigError(
                "Expected `weights_address` of the vLLM servers with `transfer: nccl` to be this machine as they reach "
                f"it, without a port, as in 10.0.0.1, but got {self.weights_address!r}."
            )
        for name, least in {"concurrency": 1, "retries": 0, "backoff_seconds": 0}.items():
            if self.__dict__[name] < least:
                raise ConfigError(f"Expected `{name}` of ServerOptions to be at least {least}.")
        _check_positive(self, "start_seconds", "timeout_seconds", "silence_seconds")


def _check_positive(options: VLLMOptions | ServerOptions, *names: str) -> None:
    for name in names:
        value = options.__dict__[name]
        if not value > 0:
            raise ConfigError(f"Expected `{name}` of {type(options).__name__} to be positive, but got {value}.")
