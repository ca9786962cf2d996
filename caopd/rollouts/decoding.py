"""Decodes token ids to text, alike in engines, training and evaluation. Special tokens go, except those of thinking.

Some tokenizers mark thinking by special tokens (``[THINK]``, ``<|channel|>``): a text without them would not tell a
thought from an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from caopd.reading import thinking

_NUM_PROMPT_TOKENS = 24
"""Number of tokens at the end of a prompt that may spell the opening of a thought."""


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Decode ids, leaving special tokens out except for markers of thinking, without cleaning up spaces.

    Args:
        tokenizer: The model's tokenizer.
        ids: Token ids of a completion.
    """
    unspoken = _unspoken(tokenizer)
    spoken = list(ids) if unspoken is None else [each for each in ids if each not in unspoken]
    skips = unspoken is None
    return str(tokenizer.decode(spoken, skip_special_tokens=skips, clean_up_tokenization_spaces=False))


def opens_thought(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with the opening of a thought: its completion then begins within one.

    Args:
        tokenizer: The model's tokenizer.
        prompt_ids: Token ids of the whole prompt.
    """
    return thinking.opens_thought(tokenizer.decode(list(prompt_ids[-_NUM_PROMPT_TOKENS:]), skip_special_tokens=False))


@lru_cache(maxsize=8)
def _unspoken(tokenizer: PreTrainedTokenizerBase) -> frozenset[int] | None:
    """Return the special ids that are left out of texts; None where all special tokens of the tokenizer can be."""
    added = tokenizer.added_tokens_decoder.items()
    special = {number: token.content for number, token in added if token.special}
    shown = {number for number, content in special.items() if thinking.is_marker(content)}
    return frozenset(special.keys() | set(tokenizer.all_special_ids)) - shown if shown else None
