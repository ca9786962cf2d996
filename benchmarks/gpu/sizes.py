"""How large the parts are: as on a GPU, and as a test on a CPU can afford."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from caopd.models import LanguageModel, ModelSource
from peering.models import write_filled_up


@dataclass(frozen=True)
class Size:
    """Sizes of all parts.

    Attributes:
        vocabulary: Of the model.
        hidden: Width of the model; heads are 64 wide.
        layers: Number of the model's layers.
        groups: Prompt length, completion length and G, in tokens, of the groups that attention is measured on.
        step_groups: The same, of the groups that steps are run on.
        loss: Tokens, vocabulary and width of the loss.
        chunks: Tokens of a chunk of the loss.
        num_prompts: Prompts of a step.
        repeats: Of every measurement.
    """

    vocabulary: int
    hidden: int
    layers: int
    groups: tuple[tuple[int, int, int], ...]
    step_groups: tuple[tuple[int, int, int], ...]
    loss: tuple[int, int, int]
    chunks: tuple[int, ...]
    num_prompts: int
    repeats: int

    def config(self) -> LlamaConfig:
        """Return the model's configuration."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 8 // 3,
            num_hidden_layers=self.layers,
            num_attention_heads=self.hidden // 64,
            num_key_value_heads=max(1, self.hidden // 192),
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )

    def model(self, device: str, attention: str = "sdpa") -> LanguageModel:
        """Return the model with random weights in float32, the same in every call on a device."""
        torch.manual_seed(0)
        config = self.config()
        config._attn_implementation = attention
        with torch.device(device):
            model = LlamaForCausalLM(config)
        return LanguageModel(model, (0,), 0).train()

    def write(self, folder: Path) -> None:
        """Write the model with the embedded model's tokenizer as a folder."""
        torch.manual_seed(0)
        write_filled_up(LlamaForCausalLM(self.config()), ModelSource().load_tokenizer(), folder)


SIZES = {
    "full": Size(
        vocabulary=49_152,
        hidden=576,
        layers=30,
        groups=((58, 48, 4), (300, 64, 8), (700, 48, 8), (150, 400, 8)),
        step_groups=((300, 64, 8), (700, 48, 8)),
        loss=(2048, 151_936, 1024),
        chunks=(64, 256, 1024),
        num_prompts=8,
        repeats=5,
    ),
    "tiny": Size(
        vocabulary=512,
        hidden=64,
        layers=2,
        groups=((20, 4, 2),),
        step_groups=((20, 4, 2),),
        loss=(64, 512, 64),
        chunks=(16, 64),
        num_prompts=2,
        repeats=1,
    ),
}
