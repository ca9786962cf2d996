"""Prompts and models of a stated size, as the files that ``caopd fit`` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from caopd.models.tiny import build_tokenizer
from peering.models import write_filled_up

OPTIONS = "\n\nA: 17\nB: 18\nC: 19\nD: 20"
SPLITS = ("train", "validation", "test")
ADDED_TOKENS = 3
"""What a prompt has beside its question's characters in :func:`caopd.models.tiny.build_tokenizer`'s tokens."""


def question(number: int, length: int) -> str:
    """Return a question with options of so many characters, another one for every number."""
    opening = f"No. {number}: how many digits are in "
    room = length - len(opening) - len(OPTIONS)
    if room < 1:
        raise ValueError(f"a question of {length} characters is too short, {len(opening) + len(OPTIONS) + 1} at least")
    return opening + "".join(str((7 * number + place) % 10) for place in range(room)) + OPTIONS


def write_rows(file: Path, lengths: Sequence[int]) -> list[str]:
    """Write a science question for every length in characters; return the options that name the file."""
    rows = [{"idx": n, "prompt": question(n, length), "answer": "B"} for n, length in enumerate(lengths)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"--data.task.source.files.{split}={file}" for split in SPLITS]


def write_model(folder: Path, width: int, num_layers: int, vocabulary: int | None = None) -> str:
    """Write an untrained Llama that reads characters, unless it is there; return the option that names it.

    Args:
        folder: Where the model lies.
        width: Of the residual stream; the MLP's is three times that, and heads have 32 dimensions.
        num_layers: Number of decoder layers.
        vocabulary: Number of tokens, most of which no text has; None gives the tokenizer's own.
    """
    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        tokenizer = build_tokenizer()
        config = LlamaConfig(
            vocab_size=vocabulary or len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=num_layers,
            num_attention_heads=width // 32,
            num_key_value_heads=max(1, width // 64),
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
        )
        write_filled_up(LlamaForCausalLM(config), tokenizer, folder)
    return f"--model.source.name_or_path={folder}"
