"""What runs inside vLLM's workers: it takes over weights and remembers their version.

vLLM adds this class to its worker (``worker_extension_cls``); its methods are called by name over ``collective_rpc``,
in a child process as well as on a server. It is imported there and needs nothing of the trainer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
EXTENSION = "caopd.vllm_host.keeper.WeightKeeper"


class WeightKeeper:
    """A class that vLLM mixes into its worker."""

    _policy_version: int = -1

    def take_policy(self: Any, directory: str, num_weights: str) -> str:
        """Replace the model's weights by those in a directory of safetensors files.

        Args:
            directory: Weights under their checkpoint names, the head's included.
            num_weights: How many there are, a whole number.

        Returns:
            The number that was read.

        Raises:
            FileNotFoundError: Some of them are missing: vLLM itself would keep the old ones, with a warning.
        """
        names = [name for name, _ in _weights(Path(directory))]
        if len(names) != int(num_weights):
            raise FileNotFoundError(
                f"Expected {num_weights} weights in {directory}, but this process sees {len(names)}: a server must "
                "read the `weights_directory` that the trainer writes."
            )
        self.reload_weights(weights_iterator=_weights(Path(directory)), is_checkpoint_format=True)
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


def _weights(directory: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                yield name, weights.get_tensor(name)
