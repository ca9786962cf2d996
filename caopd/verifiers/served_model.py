"""A language model on a server with OpenAI's HTTP interface, which vLLM and others offer."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from caopd.errors import ConfigError, UnansweredError
from caopd.verifiers.judge import JudgeModel

_NUM_TRIES = 3
_SECONDS_BETWEEN_TRIES = 1.0


@dataclass(frozen=True)
class ServedModel(JudgeModel):
    """A model that a server completes chats with, greedily: ``vllm serve NAME --port 8001``, for example.

    A server that is not there, or busy, is asked three times; a request that it refuses ends the run.

    Args:
        url: Address of the interface, such as ``http://localhost:8001/v1``.
        name: The model's name there.
        timeout_seconds: How long one request may take; three of them should fit into ``data.verifier_timeout_seconds``.
        max_tokens: Length limit of a reply.
        key_variable: Environment variable that holds the key to the server; None where it needs none.
        template_arguments: Of the model's chat template, as vLLM takes them: ``{enable_thinking: false}`` where a model
            would otherwise think beyond ``max_tokens``. Not sent where there are none, as other servers know none.
    """

    url: str
    name: str
    timeout_seconds: float = 18.0
    max_tokens: int = 256
    key_variable: str | None = None
    template_arguments: dict[str, Any] = field(default_factory=dict)

    def reply(self, prompt: str) -> str:
        """Return what the model answers to a prompt.

        Raises:
            UnansweredError: The server is not there, too busy, or too slow.
            ConfigError: It refuses the request, or replies in another form; or the key's variable is not set.
        """
        problem = ""
        for number in range(_NUM_TRIES):
            if number:
                time.sleep(_SECONDS_BETWEEN_TRIES)
            status, body = self._asked(prompt)
            if status == 200:
                return self._content(body)
            problem = f"{status} {body[:200]}".strip()
            if status is not None and 400 <= status < 500 and status not in (408, 429):
                raise ConfigError(f"Expected {self.url} to complete a chat with {self.name!r}, but got {problem}.")
        raise UnansweredError(
            f"Expected {self.name!r} at {self.url} to answer, but after {_NUM_TRIES} tries: {problem}. There is no "
            "verdict, and the completion is left out. Start the server, or correct `url`."
        )

    def _asked(self, prompt: str) -> tuple[int | None, str]:
        """Return the status and the body of the server's answer; None, and what went wrong, where there is none."""
        import requests

        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        if self.template_arguments:
            body["chat_template_kwargs"] = self.template_arguments
        try:
            response = requests.post(
                f"{self.url.rstrip('/')}/chat/completions",
                json=body,
                headers=self._headers(),
                timeout=self.timeout_seconds,
            )
        except requests.RequestException as error:
            return None, f"{type(error).__name__}: {error}"
        return response.status_code, response.text

    def _headers(self) -> dict[str, str]:
        if self.key_variable is None:
            return {}
        if self.key_variable not in os.environ:
            raise ConfigError(
                f"Expected the environment variable {self.key_variable} (`key_variable` of ServedModel) to hold the "
                f"key to {self.url}, but it is not set."
            )
        return {"Authorization": f"Bearer {os.environ[self.key_variable]}"}

    def _content(self, body: str) -> str:
        try:
            parsed: Any = json.loads(body)
            content = parsed["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                f"Expected {self.url} to reply as OpenAI's chat completions do, but got {body[:200]!r}. Correct `url`."
            ) from error
        return str(content or "")
