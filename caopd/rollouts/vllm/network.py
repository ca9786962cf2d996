"""Sends weights to vLLM servers from GPU to GPU, by vLLM's own transfer: no file, and no copy in this machine's memory.

Every server has a group of its own with this process, so that a lost one holds up nobody else. vLLM opens the group and
broadcasts with NCCL; its HTTP routes say which weights come.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import closing, suppress
from threading import Thread
from typing import TypeVar

import torch
from torch import Tensor

from caopd.errors import CaopdError, ConfigError, ServerLostError
from caopd.rollouts.vllm.http import ServerSession
from caopd.vllm_host.group import Group, open_group

T = TypeVar("T")
_OPEN = "/init_weight_transfer_engine"


class NetworkTransfer:
    """Groups with servers, and what is sent through them.

    Args:
        http: Asks the servers.
        host: This machine, as they reach it.
    """

    def __init__(self, http: ServerSession, host: str) -> None:
        self._http = http
        self._host = host
        self._groups: dict[str, Group] = {}

    def open(self, url: str, num_workers: int, device: torch.device) -> None:
        """Open a group with a server, in place of an earlier one.

        Args:
            url: Address of the server.
            num_workers: How many workers it has.
            device: Where the weights are that are sent.

        Raises:
            ConfigError: Weights do not lie on a GPU, or the server's workers do not reach this machine.
            CaopdError: The server cannot be asked, or was started without what it needs.
        """
        self._leave(url)
        for path in ("/finish_weight_update", "/shutdown_weight_transfer_engine"):
            with suppress(CaopdError):  # where there is no trainer that is gone, whose update may have begun
                self._http.call("POST", url, path)
        port, size = _free_port(self._host), 1 + num_workers
        place = {"master_address": self._host, "master_port": port, "rank_offset": 1, "world_size": size}
        body = {"init_info": {**place, "packed": False}}
        # Both wait for each other; where one has failed, the other is left behind.
        opened = _started(lambda: open_group(self._host, port, size, device))
        asked = _started(lambda: self._http.call("POST", url, _OPEN, body=body))
        wait([opened, asked], return_when=FIRST_EXCEPTION)
        if asked.done():
            asked.result()
        if (error := opened.exception()) is not None:
            raise ConfigError(
                f"Expected this process and the vLLM server {url} to meet at {self._host}:{port}, but they do not "
                f"({error}): `weights_address` must be this machine as the server reaches it, and `transfer: nccl` "
                "needs a GPU on both sides."
            ) from error
        self._groups[url] = opened.result()

    def begin(self, url: str) -> None:
        """Tell a server that new weights come."""
        self._http.call("POST", url, "/start_weight_update")

    def send(self, url: str, weights: Mapping[str, Tensor]) -> None:
        """Send some of the weights to a server; returns when it has taken them.

        Args:
            url: Address of the server.
            weights: Names in the checkpoint and tensors, whole.

        Raises:
            ServerLostError: It does not take them.
        """
        coming = {
            "names": list(weights),
            "dtype_names": [str(weight.dtype).removeprefix("torch.") for weight in weights.values()],
            "shapes": [list(weight.shape) for weight in weights.values()],
        }
        group = self._groups.get(url)
        if group is None:
            raise ServerLostError(f"The vLLM server {url} has left, and gets weights again with the next policy.")
        sent = [weight.contiguous() for weight in weights.values()]
        taken = _started(lambda: self._http.call("POST", url, "/update_weights", body={"update_info": coming}))
        try:
            _broadcast(group, sent)
            taken.result()
        except BaseException:
            self._groups.pop(url, None)  # its end is in the middle of a broadcast, and cannot be used again
            raise

    def finish(self, url: str) -> None:
        """Tell a server that all weights have come."""
        self._http.call("POST", url, "/finish_weight_update")

    def close(self) -> None:
        """Leave all groups, and tell the servers so. Never raises."""
        for url in list(self._groups):
            with suppress(Exception):
                self._http.call("POST", url, "/shutdown_weight_transfer_engine", seconds=5.0)
            self._leave(url)

    def _leave(self, url: str) -> None:
        group = self._groups.pop(url, None)
        if group is not None:
            with suppress(Exception):
                group.destroy()


def _started(work: Callable[[], T]) -> Future[T]:
    """Do work in a thread that nobody waits for at the end of the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _broadcast(group: Group, weights: Sequence[Tensor]) -> None:
    """Send weights, on a stream on which what a lost server does not receive holds up nothing else."""
    device = weights[0].device
    stream = None
    if device.type == "cuda":
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
    for weight in weights:
        group.broadcast(weight, src=0, stream=stream)


def _free_port(host: str) -> int:
    """Return a port that nobody listens on.

    Raises:
        ConfigError: The host is not this machine.
    """
    try:
        with closing(socket.create_server((host, 0))) as probe:
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise ConfigError(
            f"Expected `weights_address` of `servers` to be an address of this machine, as in 10.0.0.1, but got "
            f"{host!r}: {error}."
        ) from error
