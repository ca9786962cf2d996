"""What runs inside vLLM's workers: it takes over weights and remembers their version.

vLLM adds this class to its worker (``worker_extension_cls``); its methods are called by name over ``collective_rpc``,
in a child process as well as on a server. It is imported there and needs nothing of the trainer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from torch import Tensor

SHAPING = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
)
"""Settings of a transformers config that decide which weights there are, and their shapes."""
INDEX = "index.json"
"""Lists the files of weights that a trainer sends."""
_SECONDS = 60.0
"""Longest silence of a trainer that sends weights."""
EXTENSION = "caopd.vllm_host.keeper.WeightKeeper"


class WeightKeeper:
    """A class that vLLM mixes into its worker."""

    _policy_version: int = -1

    def take_policy(self: Any, directory: str, num_weights: str) -> str:
        """Replace the model's weights by those in safetensors files.

        Args:
            directory: A folder, or a URL under which the trainer sends it: weights under their checkpoint names, the
                head's included.
            num_weights: How many there are, a whole number.

        Returns:
            The number that was read.

        Raises:
            FileNotFoundError: Some of them are missing: vLLM itself would keep the old ones, with a warning.
            ConnectionError: The trainer cannot be reached.
        """
        if not directory.startswith("http://"):
            _check_number(sum(len(names) for _, names in _stored(Path(directory))), num_weights, directory)
        self.reload_weights(weights_iterator=_weights(directory, num_weights), is_checkpoint_format=True)
        return num_weights

    def describe_model(self: Any) -> str:
        """Return the settings that decide the names and shapes of the model's weights, as JSON."""
        config = self.model_config.hf_text_config
        found = {name: getattr(config, name, None) for name in SHAPING}
        return json.dumps({"architectures": list(self.model_config.hf_config.architectures or []), **found})

    def stamp_policy(self, version: str) -> str:
        """Set the version of the weights, when all of them have arrived.

        Args:
            version: The version that later rollouts are stamped with, a whole number.

        Returns:
            The version.
        """
        self._policy_version = int(version)
        return version

    def policy_version(self) -> str:
        """Return the version of the weights that this worker computes with; -1 before the first ones."""
        return str(self._policy_version)


def _weights(place: str, num_weights: str) -> Iterator[tuple[str, Tensor]]:
    number = 0
    for name, weight in _received(place) if place.startswith("http://") else _read(Path(place)):
        number += 1
        yield name, weight
    _check_number(number, num_weights, place)


def _check_number(number: int, expected: str, place: str) -> None:
    if number != int(expected):
        raise FileNotFoundError(
            f"Expected {expected} weights in {place}, but this process sees {number}: a server must read the "
            "`weights_directory` that the trainer writes."
        )


def _stored(directory: Path) -> Iterator[tuple[Any, list[str]]]:
    from safetensors import safe_open

    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            yield weights, list(weights.keys())


def _read(directory: Path) -> Iterator[tuple[str, Tensor]]:
    for weights, names in _stored(directory):
        for name in names:
            yield name, weights.get_tensor(name)


def _received(url: str) -> Iterator[tuple[str, Tensor]]:
    """Yield weights that the trainer sends, file by file; no proxy is asked."""
    from safetensors.torch import load

    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"{url}/{INDEX}", timeout=_SECONDS) as names:
            files = json.load(names)
        for file in files:
            with opener.open(f"{url}/{file}", timeout=_SECONDS) as content:
                weights = load(content.read())
            yield from weights.items()
    except OSError as error:
        address = url.removeprefix("http://").partition("/")[0]
        raise ConnectionError(
            f"Expected the trainer's weights at {address}, but it does not send them ({error}): `weights_address` must "
            "be an address of the trainer's machine that this one reaches."
        ) from error
