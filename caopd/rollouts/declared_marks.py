"""Finds the marks of thinking that a chat template declares, by what it does with an answer that comes with a thought.

The marks that are common among models are known anyway (:mod:`caopd.reading.thinking`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from caopd.reading.thinking import Marks

_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
"""Keys of a message under which templates take a thought."""
_THOUGHT, _ANSWER, _QUESTION = "qthoughtq", "qanswerq", "qquestionq"
_MARK = r"<[^<>\s]{1,40}>|\[[^\[\]\s]{1,40}\]|\u25c1[^\u25c1\u25b7\s]{1,40}\u25b7"
_LAST_MARK = re.compile(rf"({_MARK})\s*\Z")
_FIRST_MARK = re.compile(rf"\s*({_MARK})")
_CLOSING = re.compile(r"</[\w:]{1,30}>|\[/\w{1,30}\]|<\|[\w/]{0,30}(?ai:end|close|/)[\w/]{0,30}\|>")
_OF_TEMPLATES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What a chat template may raise, which computes as Python does."""


def declared_marks(tokenizer: PreTrainedTokenizerBase) -> Marks:
    """Return the opening and closing marks that a chat template puts around thoughts, or that it cuts answers at.

    Two questions are put to the template. What stands around the thought of a message that has one (under
    ``reasoning_content`` and the like)? And at which closing mark of its text does it cut an earlier answer, as those
    templates do that take the thought out of a conversation? Such a mark's opening may be unknown, and is then empty.

    Args:
        tokenizer: The model's tokenizer; without a chat template nothing is declared.
    """
    return _declared(tokenizer, str(tokenizer.chat_template or ""))


@lru_cache(maxsize=8)
def _declared(tokenizer: PreTrainedTokenizerBase, template: str) -> Marks:
    found = [*_around_a_thought(tokenizer), *_where_answers_are_cut(tokenizer, template)] if template else []
    opened = {closing for opening, closing in found if opening}
    return tuple(dict.fromkeys((opening, closing) for opening, closing in found if opening or closing not in opened))


def _around_a_thought(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, str]]:
    for follows in (False, True):
        plain = _LAST_MARK.search(_rendered(tokenizer, {"content": _ANSWER}, follows).partition(_ANSWER)[0])
        for key in _KEYS:
            text = _rendered(tokenizer, {"content": _ANSWER, key: _THOUGHT}, follows)
            before, thought, rest = text.partition(_THOUGHT)
            opening, closing = _LAST_MARK.search(before), _FIRST_MARK.match(rest.partition(_ANSWER)[0])
            if thought and closing is not None:
                is_header = opening is None or (plain is not None and plain[1] == opening[1])
                yield "" if opening is None or is_header else opening[1], closing[1]


def _where_answers_are_cut(tokenizer: PreTrainedTokenizerBase, template: str) -> Iterator[tuple[str, str]]:
    for closing in sorted(set(_CLOSING.findall(template))):
        text = _rendered(tokenizer, {"content": f"{_THOUGHT}{closing}{_ANSWER}"}, follows=True)
        if _ANSWER in text and _THOUGHT not in text:
            opening = closing.replace("/", "", 1)
            yield "" if opening == closing else opening, closing


def _rendered(tokenizer: PreTrainedTokenizerBase, answer: dict[str, str], follows: bool) -> str:
    """Return a question with its answer as text, and where one follows a further one; nothing where it is refused."""
    question = {"role": "user", "content": _QUESTION}
    messages = [question, {"role": "assistant", **answer}, *([question] if follows else [])]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except _OF_TEMPLATES:
        return ""
