"""Where the processes of a run connect to its process 0, and nobody else does."""

from __future__ import annotations

import hmac
import secrets
import selectors
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

_LOOPBACK = "127.0.0.1"
_RECEIVED_AT_ONCE = 1 << 10
_SECONDS_TO_SEND = 0.5


class Address(NamedTuple):
    """Where process 0 listens, and what a process says to show that it is of this run."""

    host: str
    port: int
    secret: str

    def connect(self, number: int, seconds: float) -> socket.socket:
        """Connect a process.

        Args:
            number: Number of the process.
            seconds: How long this may take.

        Raises:
            OSError: Process 0 cannot be reached.
        """
        connection = socket.create_connection((self.host, self.port), timeout=seconds)
        connection.sendall(f"{self.secret} {number}\n".encode())
        connection.settimeout(_SECONDS_TO_SEND)
        return connection


class Guest(NamedTuple):
    """A process that has connected, and what it has said already."""

    number: int
    connection: socket.socket
    said: bytes


class Door:
    """Listens until every process has connected once; whoever does not say the secret first is sent away.

    Args:
        host: This node, as the other processes know it; None where all are on it.
        numbers: The numbers of the processes that are awaited.
        selector: Says which connection is ready; the door's own are registered there.
    """

    def __init__(self, host: str | None, numbers: Iterable[int], selector: selectors.BaseSelector) -> None:
        self._awaited = set(numbers)
        self._selector = selector
        self._strangers: dict[socket.socket, bytes] = {}
        self._server = _server(host is None)
        self._selector.register(self._server, selectors.EVENT_READ)
        self._secret = secrets.token_hex(16)
        self.address = Address(host or _LOOPBACK, self._server.getsockname()[1], self._secret)

    def owns(self, connection: socket.socket) -> bool:
        """Return whether a connection is the door's own, or one that has not said who it is; not after all are in."""
        return bool(self._awaited) and (connection is self._server or connection in self._strangers)

    def open(self, connection: socket.socket) -> Guest | None:
        """Deal with one that is the door's own and ready; return who has come, None if nobody has.

        Args:
            connection: One that the door :meth:`owns`.
        """
        if connection is self._server:
            with suppress(OSError):  # it has left already
                stranger, _ = self._server.accept()
                stranger.settimeout(_SECONDS_TO_SEND)
                self._selector.register(stranger, selectors.EVENT_READ)
                self._strangers[stranger] = b""
            return None
        try:
            received = connection.recv(_RECEIVED_AT_ONCE)
        except OSError:
            received = b""
        first, end, rest = (self._strangers.pop(connection) + received).partition(b"\n")
        if received and not end and len(first) < _RECEIVED_AT_ONCE:
            self._strangers[connection] = first
            return None
        number = next((each for each in self._awaited if self._is(each, first)), None)
        if number is None:
            self._selector.unregister(connection)
            connection.close()
            return None
        self._awaited.remove(number)
        if not self._awaited:
            self._close()
        return Guest(number, connection, rest)

    def _is(self, number: int, said: bytes) -> bool:
        return hmac.compare_digest(said, f"{self._secret} {number}".encode())

    def _close(self) -> None:
        for connection in (self._server, *self._strangers):
            self._selector.unregister(connection)
            connection.close()
        self._strangers.clear()


def _server(is_local: bool) -> socket.socket:
    if is_local:
        return socket.create_server((_LOOPBACK, 0))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))
