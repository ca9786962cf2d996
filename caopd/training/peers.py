"""Sockets between the processes of a run, over which each says that it lives, has failed, or ends.

They stand beside the collective operations: a process that waits in one of these hears nothing there of a peer that has
stopped. Process 0 hears all others and passes on what they say; the others hear process 0.
"""

from __future__ import annotations

import json
import os
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

from caopd.distributed import is_first_process, num_processes, process_number
from caopd.errors import ConfigError
from caopd.texts import in_terminal
from caopd.training.door import Address, Door

_BEAT_SECONDS = 0.5
_PATIENCE_SECONDS = 10.0
"""How long a process that has failed waits for the others to fail as well."""
_SECONDS_FOR_FIRST = 60.0
"""How long a process that has failed leaves process 0 to end before it: process 0 shows the run's exit status."""
_RECEIVED_AT_ONCE = 1 << 16
_MAX_TEXT = 4000
"""Longest text of a word, characters."""


class Word(NamedTuple):
    """What a process says of itself, or process 0 of another one.

    Attributes:
        kind: ``alive``, ``failed`` (it may still end together with the others), ``ended``
            (it has ended before its time, or does so now) or ``done``.
        process: Number of the process.
        name: What people call it.
        text: What has happened.
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
        self._door: Door | None = None
        self._changed = threading.Condition(threading.RLock())
        self._failed: dict[int, Word] = {}
        self._failed_later: list[Word] = []
        """What others have said of their next failure, while this process was not yet out of the last one."""
        self._ended: dict[int, Word] = {}
        self._closing = False
        self.is_alone = False

    def listen(self, host: str | None) -> Address:
        """Listen, in process 0, for the others, and return where.

        Args:
            host: This node, as the others know it; None where all processes are on it.
        """
        self._door = Door(host, self._peers, self._selector)
        return self._door.address

    def connect(self, address: Address) -> None:
        """Connect another process than number 0 to it.

        Args:
            address: What :meth:`listen` returned in process 0.

        Raises:
            ConfigError: It cannot be reached.
        """
        try:
            connection = address.connect(self._number, self._timeout_seconds)
        except OSError as error:
            raise ConfigError(
                f"Expected process 0 to be reached at {address.host}, port {address.port}, but {error}: let the nodes "
                "of a run reach all ports of each other, or set `peers.timeout_seconds` to null and go without a watch."
            ) from error
        self._peers[0].connection = connection
        self._selector.register(connection, selectors.EVENT_READ)

    def start(self) -> None:
        """Begin; in process 0, when the others, which have connected, are let in: all are to hear its last word."""
        super().start()
        with self._changed:
            self._changed.wait_for(lambda: all(each.connection for each in self._peers.values()), self._timeout_seconds)

    def run(self) -> None:
        """Speak and listen until :meth:`close`."""
        before = time.monotonic()
        spoken = before - _BEAT_SECONDS
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
                self._failed = {word.process: word for word in self._failed_later}
                self._failed_later.clear()
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
            connection.sendall(json.dumps(word._replace(text=word.text[:_MAX_TEXT])).encode() + b"\n")

    def _receive(self, connection: socket.socket) -> None:
        if self._door is not None and self._door.owns(connection):
            guest = self._door.open(connection)
            if guest is not None:
                self._peers[guest.number].connection = guest.connection
                self._read(self._peers[guest.number], guest.said)
            return
        try:
            received = connection.recv(_RECEIVED_AT_ONCE)
        except OSError:
            received = b""
        peer = next((peer for peer in self._peers.values() if peer.connection is connection), None)
        if peer is None:
            return  # a stranger whom the door has just sent away
        if received:
            self._read(peer, received)
        else:
            self._forget(connection)
            peer.connection = None
            if not peer.is_done:
                self._lose(peer, "has ended without a word: killed, out of memory, or crashed")

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _read(self, peer: Peer, received: bytes) -> None:
        *lines, peer.unread = (peer.unread + received).split(b"\n")
        for line in lines:
            with suppress(ValueError):  # a word that a full socket has cut
                self._hear(peer, Word(*json.loads(line)))
        self._changed.notify_all()

    def _hear(self, peer: Peer, word: Word) -> None:
        if word.process not in self._failed:  # one that has failed is to end soon
            peer.silent_seconds = 0.0
        if word.kind == "alive":
            peer.name = word.name
        elif word.kind == "done":
            peer.is_done = True
        else:
            heard = self._failed if word.kind == "failed" else self._ended
            if heard.setdefault(word.process, word) != word and word.kind == "failed":
                self._failed_later.append(word)
            if self._is_first:
                self._say(word, but=peer)
            if word.kind == "ended":
                self._end(word.text)

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
            self._say(word)  # to one that stands still too: it may go on some day
        self._changed.notify_all()
        self._end(text)

    def _end(self, text: str) -> None:
        """End this process, unless it has failed itself and is about to show its own error."""
        if self._number in self._failed:
            return
        message = f"Stopped, since {text}. The last checkpoint is as it was: go on from it with `--ckpt_path`."
        os.write(2, f"error: {in_terminal(message)}\n".encode(errors="backslashreplace"))
        self._end_children()
        if not self._is_first and self._peers[0].silent_seconds > self._timeout_seconds:
            parent = f"(pid {os.getppid()} on {socket.gethostname()})"
            if parent in self._peers[0].name:  # process 0 stands still, and has started this one
                os.kill(os.getppid(), signal.SIGKILL)
        _end_now()


def _end_now() -> None:
    """End the process at once: threads of collective operations that will never be done would hold up Python's end."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(1)
