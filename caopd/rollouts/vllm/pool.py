"""Asks several vLLM servers at once, watches over them, and goes on without those that are lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, NamedTuple, TypeVar

from caopd.errors import RolloutError, ServerLostError
from caopd.rollouts.vllm.http import ServerSession
from caopd.rollouts.vllm.options import ServerOptions

logger = logging.getLogger(__name__)

T = TypeVar("T")
_WATCH_SECONDS = 0.1


class ServerPool:
    """The servers of a run, and which of them are lost.

    A server is lost when nothing answers at its address, when it fails, or when it is silent: it works on requests, but
    does not say for ``silence_seconds`` that it lives. It is asked again with :meth:`rejoin`.

    Args:
        servers: Addresses of the servers, and how they are asked.
        http: Sends requests to them.

    Attributes:
        lost: Why each lost server is lost, by its address.
    """

    def __init__(self, servers: ServerOptions, http: ServerSession) -> None:
        self._servers = servers
        self._http = http
        self.lost: dict[str, str] = {}

    @property
    def urls(self) -> list[str]:
        """The addresses of the servers that are not lost."""
        return [url for url in self._servers.urls if url not in self.lost]

    def rejoin(self, check: Callable[[str], object]) -> None:
        """Take lost servers back that answer again.

        Args:
            check: Asks a server whether it can be used; raises ServerLostError where it cannot yet.
        """
        for url in list(self.lost):
            if self._http.is_alive(url):
                with suppress(ServerLostError):
                    check(url)
                    del self.lost[url]
                    logger.warning("The vLLM server %s answers again, and is used again.", url)

    def each(self, ask: Callable[[str], T]) -> dict[str, T]:
        """Ask every server that is not lost, all at once, and return the answers by their addresses.

        Args:
            ask: Asks the server of an address.

        Raises:
            RolloutError: No server is left; what ``ask`` raises otherwise.
        """
        urls = self.urls
        own = {url: _queue([number]) for number, url in enumerate(urls)}
        work = _Work(own, lambda url, number: ask(url), self._watchers(urls))
        answers = work.answers(len(urls), self._leave_out)
        return {urls[number]: answer for number, answer in answers.items() if urls[number] not in self.lost}

    def share(self, ask: Callable[[str, int], T], count: int, on_answer: Callable[[int], None]) -> list[T]:
        """Let the servers work on tasks, each on the next one when it is free, and return the answers in order.

        The tasks of a server that is lost meanwhile are given to others.

        Args:
            ask: Asks the server of an address for the task of a number.
            count: How many tasks there are.
            on_answer: Told how many are done.

        Raises:
            RolloutError: No server is left; what ``ask`` raises otherwise.
        """
        tasks = _queue(range(count))
        urls = self.urls
        work = _Work(dict.fromkeys(urls, tasks), ask, self._watchers(urls), self._servers.concurrency)
        answers = work.answers(count, self._leave_out, on_answer)
        return [answers[number] for number in range(count)]

    def _watchers(self, urls: Sequence[str]) -> dict[str, _Watcher]:
        return {url: _Watcher(url, self._http, self._servers.silence_seconds) for url in urls}

    def _leave_out(self, url: str, error: Exception) -> None:
        self.lost[url] = str(error)
        if not self.urls:
            others = len(self.lost) - 1
            more = f" The other {others} were lost before: {'; '.join(list(self.lost.values())[:-1])}" if others else ""
            raise RolloutError(f"{error}{more}") from error
        logger.warning(
            "The vLLM server %s is left out, and others do its work; it is asked again with the next weights. %s",
            url,
            error,
        )


class _Ended(NamedTuple):
    """How a server's work on a task ended."""

    url: str
    number: int
    answer: object
    error: Exception | None


class _Watcher:
    """Asks a server now and then whether it lives, in a thread of its own, while others wait for its answers."""

    def __init__(self, url: str, http: ServerSession, patience: float) -> None:
        self.url = url
        self._http = http
        self._patience = patience
        self._last = time.monotonic()
        self._has_warned = False

    def watch(self, end: Event) -> None:
        """Ask until the end."""
        while not end.wait(self._patience / 10):
            if self._http.is_alive(self.url, self._patience / 2):
                self._last = time.monotonic()
                self._has_warned = False

    def silent(self) -> ServerLostError | None:
        """Return an error, if the server has been silent for too long; warn at half of the time."""
        seconds = time.monotonic() - self._last
        if seconds > self._patience:
            return ServerLostError(
                f"Restart the vLLM server {self.url}, or raise `silence_seconds` of `servers` if it needs longer: it "
                f"has not said for {self._patience:g} s that it lives."
            )
        if seconds > self._patience / 2 and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The vLLM server %s has not answered for %.0f s; after %g s it counts as lost.",
                self.url,
                seconds,
                self._patience,
            )
        return None


class _Work(Generic[T]):
    """Threads that let servers work on tasks.

    The threads are daemons: one that waits for a server which is silent is left behind, and its answer is ignored.
    """

    def __init__(
        self,
        tasks: Mapping[str, SimpleQueue[int]],
        ask: Callable[[str, int], T],
        watchers: Mapping[str, _Watcher],
        concurrency: int = 1,
    ) -> None:
        self._tasks = tasks
        self._ask = ask
        self._watchers = watchers
        self._concurrency = concurrency
        self._ended: SimpleQueue[_Ended] = SimpleQueue()
        self._end = Event()
        self._held: dict[str, set[int]] = {url: set() for url in tasks}

    def answers(
        self,
        count: int,
        leave_out: Callable[[str, Exception], None],
        on_answer: Callable[[int], None] = lambda done: None,
    ) -> dict[int, T]:
        """Return the answers by the numbers of their tasks; those that only a lost server could do are not among them.

        Args:
            count: How many tasks there are.
            leave_out: Told of a server that is lost; raises where none is left.
            on_answer: Told how many tasks are done.
        """
        alive, answers, dropped = set(self._tasks), dict[int, T](), set[int]()
        self._start()
        try:
            while len(answers.keys() | dropped) < count:
                for url, error in self._lost(alive, answers, on_answer):
                    alive.discard(url)
                    leave_out(url, error)
                    shared = any(self._tasks[other] is self._tasks[url] for other in alive)
                    for number in self._held[url] - answers.keys():
                        if shared:
                            self._tasks[url].put(number)
                        else:
                            dropped.add(number)
        finally:
            self._end.set()
        return answers

    def _start(self) -> None:
        for url in self._tasks:
            Thread(target=self._watchers[url].watch, args=(self._end,), daemon=True).start()
            for _ in range(self._concurrency):
                Thread(target=self._work, args=(url,), daemon=True).start()

    def _work(self, url: str) -> None:
        while not self._end.is_set():
            with suppress(Empty):
                number = self._tasks[url].get(timeout=_WATCH_SECONDS)
                self._held[url].add(number)
                try:
                    self._ended.put(_Ended(url, number, self._ask(url, number), None))
                except Exception as error:
                    self._ended.put(_Ended(url, number, None, error))
                    return

    def _lost(
        self, alive: set[str], answers: dict[int, T], on_answer: Callable[[int], None]
    ) -> list[tuple[str, Exception]]:
        """Wait a moment for an answer, and return the servers that turn out to be lost.

        Raises:
            RolloutError: A server has answered that it cannot do what it is asked for.
        """
        with suppress(Empty):
            ended = self._ended.get(timeout=_WATCH_SECONDS)
            if isinstance(ended.error, ServerLostError):
                return [(ended.url, ended.error)] if ended.url in alive else []
            if ended.error is not None:
                raise ended.error
            if ended.number not in answers:
                answers[ended.number] = ended.answer  # type: ignore[assignment]  # of what was asked
                on_answer(len(answers))
        return [(url, error) for url in alive if (error := self._watchers[url].silent()) is not None]


def _queue(numbers: Sequence[int]) -> SimpleQueue[int]:
    queue: SimpleQueue[int] = SimpleQueue()
    for number in numbers:
        queue.put(number)
    return queue
