"""Token ids to text, the same for engines, training and evaluation: without special tokens, but with those of thinking.

Some tokenizers mark thinking by special tokens (``[THINK]``, ``<|channel|>``): a text without them would not tell a
thought from an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from caopd.reading import thinking

_NUM_PROMPT_TOKENS = 24
"""Tokens at the end of a prompt that may spell the opening of a thought."""


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Decode ids without special tokens but markers of thinking, without cleaning up spaces.

    Args:
        tokenizer: That of the model.
        ids: Of a completion.
    """
    unspoken = _unspoken(tokenizer)
    spoken = list(ids) if unspoken is None else [each for each in ids if each not in unspoken]
    skips = unspoken is None
    return str(tokenizer.decode(spoken, skip_special_tokens=skips, clean_up_tokenization_spaces=False))


def opens_thought(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with the opening of a thought: its completion then begins within one.

    Args:
        tokenizer: That of the model.
        prompt_ids: A whole prompt.
    """
    return thinking.opens_thought(tokenizer.decode(list(prompt_ids[-_NUM_PROMPT_TOKENS:]), skip_special_tokens=False))


@lru_cache(maxsize=8)
def _unspoken(tokenizer: PreTrainedTokenizerBase) -> frozenset[int] | None:
    """Return the special ids that no text shows; None where the tokenizer can leave out all of its special tokens."""
    added = tokenizer.added_tokens_decoder.items()
    special = {number: token.content for number, token in added if token.special}
    shown = {number for number, content in special.items() if thinking.is_marker(content)}
    return frozenset(special.keys() | set(tokenizer.all_special_ids)) - shown if shown else None
