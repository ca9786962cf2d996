"""Low-rank adapters (LoRA): which layers they may adapt, and how they are added."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from transformers import PreTrainedModel

from caopd.errors import ConfigError


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (arXiv 2106.09685). Only they are trained, and a moving-average teacher averages only them.

    Attributes:
        rank: Rank of every adapter, the smaller dimension of its two matrices.
        alpha: The adapter's output is scaled by ``alpha / rank``.
        target_modules: Names, or ends of names, of the adapted linear layers; None adapts all but the head.

    Raises:
        ConfigError: If peft is not installed, or the rank or alpha is below 1.
    """

    rank: int = 16
    alpha: int = 32
    target_modules: list[str] | None = None

    def __post_init__(self) -> None:
        for name, value in {"rank": self.rank, "alpha": self.alpha}.items():
            if value < 1:
                raise ConfigError(f"Expected `{name}` of LoRA to be at least 1, but got {value}.")
        if importlib.util.find_spec("peft") is None:
            raise ConfigError("`model.source.lora` needs peft, which is not installed: pip install 'caopd[lora]'.")

    def add_to(self, hf: PreTrainedModel) -> None:
        """Add adapters to a model, in place, in float32 whatever its dtype, and freeze the weights under them.

        Args:
            hf: A model whose parameters are not sharded.

        Raises:
            ConfigError: If a target is no layer of the model, or one that cannot be adapted here.
        """
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import Linear, LoraLayer

        modules = "all-linear" if self.target_modules is None else self.target_modules
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=modules, task_type="CAUSAL_LM")
        try:
            inject_adapter_in_model(config, hf)
        except ValueError as error:  # peft finds no such layer, or cannot adapt one of its kind
            raise ConfigError(f"{self._expected(hf)}. {str(error).partition(chr(10))[0][:200]}") from error
        adapted = {name: layer for name, layer in hf.named_modules() if isinstance(layer, LoraLayer)}
        absent = [end for end in self.target_modules or () if not any(f".{n}".endswith(f".{end}") for n in adapted)]
        if absent:
            raise ConfigError(f"{self._expected(hf)}: there is no {', '.join(absent)}.")
        # A tied head has no place for an embedding's adapter either.
        head = hf.get_output_embeddings()
        refused = [name for name, layer in adapted.items() if layer is head or type(layer) is not Linear]
        if refused:
            raise ConfigError(
                f"{self._expected(hf)}: leave out {', '.join(refused)}. The loss multiplies hidden states by the "
                "head's own weight, piece by piece, and never calls the layer: an adapter there would get no gradient."
            )
        for weight in hf.parameters():
            if weight.requires_grad:  # steps of an optimizer, or of a moving average, would vanish in bfloat16
                weight.data = weight.data.float()

    def _expected(self, hf: PreTrainedModel) -> str:
        return (
            f"Expected `target_modules` of LoRA to name linear layers of {type(hf).__name__} between its input "
            f"embedding and its head (null adapts all), but got {self.target_modules}"
        )
