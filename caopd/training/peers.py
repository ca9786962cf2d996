"""Sockets between the processes of a run, over which each says that it lives, has failed, or ends.

They stand beside the collective operations: a process that waits in one of these hears nothing there of a peer that has
stopped. Process 0 hears all others and passes on what they say; the others hear process 0.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from lightning import Trainer

from caopd.distributed import is_first_process, num_processes, process_number
from caopd.errors import ConfigError
from caopd.texts import in_terminal

_BEAT_SECONDS = 0.5
_PATIENCE_SECONDS = 10.0
"""How long a process that has failed waits for the others to fail as well."""
_SECONDS_FOR_FIRST = 60.0
"""How long a process that has failed leaves process 0 to end before it: process 0 shows the run's exit status."""
_MAX_WORD = 1 << 16
"""Longest message of a peer, bytes; what sends more is no peer."""


class Address(NamedTuple):
    """Where process 0 listens, and what a process says to show that it is of this run."""

    host: str
    port: int
    secret: str


class Word(NamedTuple):
    """What a process says of itself, or process 0 of another one.

    Attributes:
        kind: ``here`` (the first word), ``alive``, ``failed`` (it may still end together with the others), ``ended``
            (it has ended before its time, or does so now) or ``done``.
        process: Number of the process.
        name: What people call it.
        text: The secret, or what has happened.
        where: How far it was in the run when it failed.
    """

    kind: str
    process: int
    name: str
    text: str = ""
    where: str = ""


@dataclass
class Peer:
    """Another process that this one hears directly."""

    name: str
    connection: socket.socket | None = None
    unread: bytes = b""
    silent_seconds: float = 0.0
    is_done: bool = False


class PeerLine(threading.Thread):
    """Says every half second that this process lives, hears the others, and ends this process where one is lost.

    A process that is busy in Python or waits in a collective operation goes on speaking: this is a thread. It ends the
    process by itself, since no exception reaches a main thread that waits in a collective operation.

    Args:
        timeout_seconds: How long a peer may be silent. Time in which this process itself stood still does not count.
        end_children: Ends the processes that this one has started for the run.
    """

    def __init__(self, timeout_seconds: float, end_children: Callable[[], None]) -> None:
        super().__init__(name="caopd-peers", daemon=True)
        self._timeout_seconds = timeout_seconds
        self._patience_seconds = min(_PATIENCE_SECONDS, timeout_seconds / 2)
        self._end_children = end_children
        self._number, self._is_first = process_number(), is_first_process()
        self._name = f"process {self._number} of {num_processes()} (pid {os.getpid()} on {socket.gethostname()})"
        others = range(1, num_processes()) if self._is_first else range(1)
        self._peers = {number: Peer(f"process {number} of {num_processes()}") for number in others}
        self._selector = selectors.DefaultSelector()
        self._strangers: dict[socket.socket, bytes] = {}
        self._secret = ""
        self._changed = threading.Condition(threading.RLock())
        self._failed: dict[int, Word] = {}
        self._ended: dict[int, Word] = {}
        self._closing = False
        self.is_alone = False

    def listen(self, trainer: Trainer) -> Address:
        """Listen, in process 0, for the others, and return where.

        Args:
            trainer: Its strategy knows the address of process 0's node.
        """
        server = _server(trainer.num_nodes == 1)
        self._selector.register(server, selectors.EVENT_READ)
        self._secret = secrets.token_hex(16)
        environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]  # of every parallel strategy
        host = "127.0.0.1" if trainer.num_nodes == 1 or environment is None else environment.main_address
        return Address(host, server.getsockname()[1], self._secret)

    def connect(self, address: Address) -> None:
        """Connect another process than number 0 to it.

        Args:
            address: What :meth:`listen` returned in process 0.

        Raises:
            ConfigError: It cannot be reached.
        """
        host, port, secret = address
        try:
            connection = socket.create_connection((host, port), timeout=self._timeout_seconds)
        except OSError as error:
            raise ConfigError(
                f"Expected process 0 to be reached at {host}, port {port}, but {error}: let the nodes of a run reach "
                "all ports of each other, or set `peers.timeout_seconds` to null and go without a watch over them."
            ) from error
        self._peers[0].connection = connection
        connection.settimeout(_BEAT_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ)
        self._send(connection, Word("here", self._number, self._name, secret))

    def run(self) -> None:
        """Speak and listen until :meth:`close`."""
        before = spoken = time.monotonic()
        while not self._closing:
            ready = [key.fileobj for key, _ in self._selector.select(_BEAT_SECONDS)]
            with self._changed:
                for connection in ready:
                    assert isinstance(connection, socket.socket)
                    self._receive(connection)
                now = time.monotonic()
                if now - spoken >= _BEAT_SECONDS:
                    spoken = now
                    self._say(Word("alive", self._number, self._name))
                self._count(min(now - before, 2 * _BEAT_SECONDS))
                before = now
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            self._forget(key.fileobj)
        self._selector.close()

    def fail(self, text: str, where: str) -> bool:
        """Tell the others that this process has failed, and wait until all have.

        Args:
            text: The error.
            where: How far the process is in the run.

        Returns:
            Whether all processes have failed at the same point, so that they can go on together to the end, by
            operations in which all take part. If not, this one is alone.
        """
        with self._changed:
            own = Word("failed", self._number, self._name, text, where)
            self._say(own)
            self._failed[self._number] = own

            def is_settled() -> bool:
                return bool(self._ended) or len(self._failed) == num_processes()

            self._changed.wait_for(is_settled, self._patience_seconds)
            alike = not self._ended and [each.where for each in self._failed.values()] == [where] * num_processes()
            self.is_alone = not alike
            if alike:
                self._failed.clear()
            return alike

    @property
    def ended(self) -> str | None:
        """What is known of the first other process that has ended before its time; None if none has."""
        with self._changed:
            return next((word.text for word in self._ended.values()), None)

    def close(self) -> None:
        """Stop watching. A process that has failed alone ends here, and the others with it."""
        with self._changed:
            if self.is_alone:
                said = self._failed[self._number].text
                self._say(Word("ended", self._number, self._name, f"{self._name} failed: {said}"))
                _end_now()
            self._say(Word("done", self._number, self._name))
            self._closing = True

    def leave(self) -> None:
        """Stop watching at the end of this process, which comes after that of process 0 if all have failed alike.

        Lightning's process 0 ends all others, and itself by SIGKILL, when it sees one of them fail.
        """
        with self._changed:
            if not (self._is_first or self.is_alone):
                self._changed.wait_for(lambda: self._peers[0].is_done, _SECONDS_FOR_FIRST)
        self.close()

    def _say(self, word: Word, but: Peer | None = None) -> None:
        for peer in self._peers.values():
            if peer.connection is not None and peer is not but and not peer.is_done:
                self._send(peer.connection, word)

    def _send(self, connection: socket.socket, word: Word) -> None:
        with suppress(OSError):  # what is lost is seen where it is heard
            connection.sendall(json.dumps(word._replace(text=word.text[:4000])).encode() + b"\n")

    def _receive(self, connection: socket.socket) -> None:
        peer = next((peer for peer in self._peers.values() if peer.connection is connection), None)
        if peer is None and connection not in self._strangers:
            accepted, _ = connection.accept()
            accepted.settimeout(_BEAT_SECONDS)
            self._strangers[accepted] = b""
            self._selector.register(accepted, selectors.EVENT_READ)
            return
        try:
            received = connection.recv(_MAX_WORD)
        except OSError:
            received = b""
        if peer is None:
            self._introduce(connection, self._strangers.pop(connection) + received, bool(received))
        elif received:
            self._read(peer, received)
        else:
            self._forget(connection)
            peer.connection = None
            if not peer.is_done:
                self._lose(peer, "has ended without a word: killed, out of memory, or crashed")

    def _introduce(self, connection: socket.socket, content: bytes, is_open: bool) -> None:
        """Take a stranger for a peer when it has said the secret; send it away when it says anything else."""
        line, end, rest = content.partition(b"\n")
        if is_open and not end and len(content) < _MAX_WORD:
            self._strangers[connection] = content
            return
        with suppress(ValueError, TypeError):
            word = Word(*json.loads(line))
            peer = self._peers.get(word.process)
            if peer is not None and peer.connection is None and hmac.compare_digest(word.text, self._secret):
                peer.name, peer.connection = word.name, connection
                self._send(connection, Word("here", self._number, self._name))
                self._read(peer, rest)
                return
        self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _read(self, peer: Peer, received: bytes) -> None:
        *lines, peer.unread = (peer.unread + received).split(b"\n")
        for line in lines:
            word = Word(*json.loads(line))
            if word.process not in self._failed:  # one that has failed is to end soon
                peer.silent_seconds = 0.0
            if word.kind == "here":
                peer.name = word.name
            elif word.kind == "done":
                peer.is_done = True
            elif word.kind != "alive":
                heard = self._failed if word.kind == "failed" else self._ended
                heard.setdefault(word.process, word)
                if self._is_first:
                    self._say(word, but=peer)
                if word.kind == "ended":
                    self._end(word.text)
            self._changed.notify_all()

    def _count(self, seconds: float) -> None:
        """Add to the time that each peer has been silent."""
        for number, peer in self._peers.items():
            if not peer.is_done:
                peer.silent_seconds += seconds
            if peer.silent_seconds > self._timeout_seconds and number not in self._ended:
                self._lose(peer, f"has not answered for {self._timeout_seconds:g} s (stopped, or its machine is gone)")

    def _lose(self, peer: Peer, what: str) -> None:
        number = next(number for number, each in self._peers.items() if each is peer)
        failed = self._failed.get(number)
        text = f"{peer.name} {what}" + (f"; before, it failed: {failed.text}" if failed else "")
        word = Word("ended", number, peer.name, text)
        self._ended[number] = word
        if self._is_first:
            self._say(word, but=peer)
        self._changed.notify_all()
        self._end(text)

    def _end(self, text: str) -> None:
        """End this process, unless it has failed itself and is about to show its own error."""
        if self._number in self._failed:
            return
        message = f"Stopped, since {text}. The last checkpoint is as it was: go on from it with `--ckpt_path`."
        os.write(2, f"error: {in_terminal(message)}\n".encode(errors="backslashreplace"))
        self._end_children()
        if not self._is_first and f"(pid {os.getppid()} on {socket.gethostname()})" in self._peers[0].name:
            os.kill(os.getppid(), signal.SIGKILL)  # process 0 has started this one, and may stand still
        _end_now()


def _server(is_local: bool) -> socket.socket:
    if is_local:
        return socket.create_server(("127.0.0.1", 0))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _end_now() -> None:
    """End the process at once: threads of collective operations that will never be done would hold up Python's end."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(1)
