"""Decodes token ids to text, alike in engines, training and evaluation. Special tokens go, except those of thinking.

Some tokenizers mark thinking by special tokens (``[THINK]``, ``<|channel|>``): a text without them would not tell a
thought from an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from caopd.reading import thinking
from caopd.rollouts.declared_marks import declared_marks

_NUM_PROMPT_TOKENS = 24
"""Number of tokens at the end of a prompt that may spell the opening of a thought."""


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Decode ids, leaving special tokens out except for markers of thinking, without cleaning up spaces.

    Args:
        tokenizer: The model's tokenizer.
        ids: Token ids of a completion.
    """
    unspoken = _unspoken(tokenizer, declared_marks(tokenizer))
    spoken = list(ids) if unspoken is None else [each for each in ids if each not in unspoken]
    skips = unspoken is None
    return str(tokenizer.decode(spoken, skip_special_tokens=skips, clean_up_tokenization_spaces=False))


def opens_thought(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with the opening of a thought: its completion then begins within one.

    Args:
        tokenizer: The model's tokenizer.
        prompt_ids: Token ids of the whole prompt.
    """
    end = tokenizer.decode(list(prompt_ids[-_NUM_PROMPT_TOKENS:]), skip_special_tokens=False)
    return thinking.opens_thought(end, declared_marks(tokenizer))


@lru_cache(maxsize=8)
def _unspoken(tokenizer: PreTrainedTokenizerBase, marks: thinking.Marks) -> frozenset[int] | None:
    """Return the special ids that are left out of texts; None where all special tokens of the tokenizer can be."""
    added = tokenizer.added_tokens_decoder.items()
    special = {number: token.content for number, token in added if token.special}
    declared = {mark for pair in marks for mark in pair}
    shown = {n for n, content in special.items() if thinking.is_marker(content) or content in declared}
    return frozenset(special.keys() | set(tokenizer.all_special_ids)) - shown if shown else None
