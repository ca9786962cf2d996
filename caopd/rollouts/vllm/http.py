"""Asks vLLM servers over HTTP: with the API key, with retries, and with errors that say what to do."""

from __future__ import annotations

import os
from typing import Any, Self

import requests
from requests import PreparedRequest, RequestException, Response, Session, Timeout, codes
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import ReadTimeoutError

from caopd.errors import ConfigError, RolloutError, ServerLostError
from caopd.rollouts.vllm.options import ServerOptions

_OVERLOADED = (429, 502, 503, 504)
_MOST_CHARACTERS = 400
"""Of a server's own words."""


class ServerSession:
    """Sends requests to vLLM servers.

    A request that finds no server, or an overloaded one, is sent again with growing waits; one that a server does not
    answer in time is not.

    Args:
        servers: How the servers are asked.

    Raises:
        ConfigError: The API key holds characters that cannot be sent.
    """

    def __init__(self, servers: ServerOptions) -> None:
        self._servers = servers
        self._key = os.environ.get(servers.api_key_variable, "")
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise ConfigError(
                f"Expected the API key in the environment variable `{servers.api_key_variable}` to be printable ASCII "
                "without spaces, but it is not: does it end with a line break?"
            )
        retry = _Retry(
            total=servers.retries,
            backoff_factor=servers.backoff_seconds,
            status_forcelist=_OVERLOADED,
            allowed_methods=None,  # sampling again with the same seed gives the same completions
            raise_on_status=False,
        )
        self._http = Session()
        self._http.auth = self._with_key  # a header of the session would yield to a ~/.netrc
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=servers.concurrency))

    def call(
        self, verb: str, url: str, path: str, seconds: float | None = None, body: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 (JSON)
        """Send a request and return the answer.

        Args:
            verb: Such as ``POST``.
            url: Address of the server.
            path: What is asked for, beginning with a slash.
            seconds: Longest time to wait for the answer; None is the servers' ``timeout_seconds``.
            body: What is sent, as JSON.

        Raises:
            ServerLostError: There is no answer, or one that says that the server has failed.
            RolloutError: It says that it cannot do what it is asked for.
        """
        where = url.rstrip("/") + path
        limit = "timeout_seconds" if seconds is None else "start_seconds"
        seconds = self._servers.timeout_seconds if seconds is None else seconds
        try:
            answer = self._http.request(verb, where, json=body, timeout=seconds)
        except Timeout as error:
            raise ServerLostError(
                f"Restart the vLLM server {url}, or raise `{limit}` of `servers` if it needs longer: it did not answer "
                f"{path} within {seconds:g} s."
            ) from error
        except RequestException as error:
            raise ServerLostError(
                f"Start the vLLM server {url}, or correct `servers.urls`: nothing answered {where} in "
                f"{self._servers.retries + 1} tries ({_innermost(error)})."
            ) from error
        if not answer.ok:
            kind = ServerLostError if _has_failed(answer) else RolloutError
            raise kind(f"{self._remedy(url, answer)} It answered {where} with {_words(answer)}")
        return answer.json()

    def is_alive(self, url: str, seconds: float = 5.0) -> bool:
        """Return whether a server says that it works; it is asked once.

        Args:
            url: Address of the server.
            seconds: Longest time to wait for the answer.
        """
        try:
            return requests.get(url.rstrip("/") + "/health", auth=self._with_key, timeout=seconds).ok
        except RequestException:
            return False

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._http.close()

    def _with_key(self, request: PreparedRequest) -> PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _remedy(self, url: str, answer: Response) -> str:
        variable = self._servers.api_key_variable
        if answer.status_code in (codes.unauthorized, codes.forbidden):
            held = "the key that it holds is refused" if self._key else "it is empty"
            return (
                f"Put the API key of the vLLM server {url} into the environment variable `{variable}` "
                f"(`servers.api_key_variable`): {held}."
            )
        if answer.status_code == codes.not_found:
            return (
                f"Start the vLLM server {url} with VLLM_SERVER_DEV_MODE=1 in its environment: without it, it takes no "
                "weights."
            )
        if _lacks_transfer(answer):
            return (
                f'Start the vLLM server {url} with `--weight-transfer-config \'{{"backend": "nccl"}}\'`, or set '
                "`transfer: files` of `servers`: its workers cannot take weights over the network."
            )
        if _lacks_extension(answer):
            return (
                f"Start the vLLM server {url} with `--worker-extension-cls caopd.vllm_host.keeper.WeightKeeper`, and "
                "with this package installed: its workers cannot take weights."
            )
        return f"Look into the log of the vLLM server {url}."


class _Retry(Retry):
    """Does not ask again where a server took a request and did not answer in time: it would be asked for hours."""

    def increment(self, *arguments: Any, **more: Any) -> Self:  # noqa: ANN401 (urllib3's own, passed on)
        """Count a failure; what is raised ends the tries."""
        error = more.get("error")
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(*arguments, **more)


def _lacks_extension(answer: Response) -> bool:
    return "has no attribute" in answer.text


def _lacks_transfer(answer: Response) -> bool:
    return "weight_transfer_config" in answer.text


def _has_failed(answer: Response) -> bool:
    is_wrongly_started = _lacks_extension(answer) or _lacks_transfer(answer)
    return answer.status_code >= codes.server_error and not is_wrongly_started


def _words(answer: Response) -> str:
    return f"{answer.status_code}: {answer.text[:_MOST_CHARACTERS]}"


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"
