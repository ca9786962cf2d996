"""The models of the works, as folders that every trainer loads; their completions do not end early."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from caopd.models import ModelSource

VOCABULARY = 151_936
"""Of the tiny model, as Qwen3 has it."""
END = "<jupyter_script>"
"""A token of SmolLM2's that is never sampled. As the end of a sequence it makes all completions equally long."""


def write_smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct, dequantised, in float32."""
    source = ModelSource("smollm2-135m-instruct")
    tokenizer = source.load_tokenizer()
    _write(source.load_model(tokenizer).hf, tokenizer, folder)


def write_tiny(folder: Path) -> None:
    """Write an untrained Llama of few weights and a large vocabulary; the tokens that SmolLM2 lacks are filled up."""
    torch.manual_seed(0)
    tokenizer = ModelSource("smollm2-135m-instruct").load_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    write_filled_up(LlamaForCausalLM(config), tokenizer, folder, END)


def write_filled_up(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, end: str | None = None
) -> None:
    """Write a model with a tokenizer of fewer tokens than it has, whose vocabulary is filled up.

    Args:
        model: The model.
        tokenizer: Its vocabulary is the beginning of the model's.
        folder: Is made.
        end: Token that ends sequences; None leaves the tokenizer's own.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"filler{index}": index for index in range(len(vocabulary), model.config.vocab_size)}
    file.write_text(json.dumps(content))
    _write(model, AutoTokenizer.from_pretrained(folder), folder, end)


def _write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, end: str | None = END) -> None:
    tokenizer.eos_token = end or tokenizer.eos_token
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


MODELS = {"smollm2": write_smollm2, "tiny": write_tiny}
