"""Reads calls of tools in ToolAlpaca's form (arXiv 2306.05301): lines ``Action:`` and ``Action Input:``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from caopd.reading.call_values import DECODER, Call, calls_of, expressions, tool_name

_COLON = r"[*_`]{0,3}(?:[ \t]\d{1,2})?[*_`]{0,3}[ \t]{0,2}[:\uff1a][*_`]{0,3}"
_NUMBERED = r"(?:\d{1,2}[.)]\s*+[*_`]{0,3})?"
_ACTION = re.compile(rf"^[ \t>*_`#\u2022-]*+{_NUMBERED}(?ai:action){_COLON}", re.MULTILINE)
_ACTION_INPUT = re.compile(
    rf"[\s,;>*_`#\u2022-]*+{_NUMBERED}(?ai:action[ _]?input){_COLON}\s*+(?:`{{1,3}}\s*)?(?:(?ai:json|python)\s+)?"
)
_NAME = re.compile(r"[^\r\n]*?(?=[,;]?[ \t]{1,4}(?ai:action[ _]?input)|[\r\n]|\Z)")
_NAME_BELOW = re.compile(r"\s*+(?![*_`>#\u2022-]{0,3}\s?(?ai:action|thought|observation)\b)[^\r\n]+")
_OBJECT = re.compile(r"\s*+(?:`{1,3}[ \t]*)?(?:(?ai:json)\s+)?(?=\{)")
_NO_ACTION = re.compile(r"(?ai:none|no|nothing|n/a|finish)\b")
REST_OF_LINE = re.compile(r"[ \t]*`{0,3}[ \t]*[.,;]?[ \t]*(?=[\r\n]|\Z|<[/|\uff5c])")
"""What may stand behind a call's input on its line: a fence, a full stop, a tag."""


def action_calls(text: str) -> Iterator[Call]:
    """Yield the calls of a text, in order; ``Action: None`` without an input is none.

    A call that an ``Action:`` line holds as a JSON object or as ``name(key=value)`` is read, too: it is not the form
    asked for.

    Args:
        text: A completion without its thoughts.

    Raises:
        ValueError: A call cannot be read.
        RecursionError: An input is nested too deeply.
    """
    position = 0
    while action := _ACTION.search(text, position):
        named = _NAME.match(text, action.end())
        if named is not None and not named[0].strip():
            named = _NAME_BELOW.match(text, named.end()) or named
        name = tool_name("" if named is None else named[0])
        position = action.end() if named is None else named.end()
        marker = _ACTION_INPUT.match(text, position)
        if marker is None:
            if _NO_ACTION.match(name):
                continue
            calls, position = _written_otherwise(text, action.end(), position)
            yield from calls
            continue
        if not name:
            raise ValueError("an input without its action")
        arguments, position = DECODER.raw_decode(text, marker.end())
        if REST_OF_LINE.match(text, position) is None:
            raise ValueError("text behind the input")
        yield Call(name, arguments, is_asked=True)


def _written_otherwise(text: str, start: int, end: int) -> tuple[list[Call], int]:
    """Return the calls of an ``Action:`` line without an input, and where they end."""
    before = _OBJECT.match(text, start)
    if before is not None:
        value, end = DECODER.raw_decode(text, before.end())
        calls = calls_of(value)
    else:
        calls = expressions(text[start:end].strip(" \t*`"))
    if not calls or REST_OF_LINE.match(text, end) is None:
        raise ValueError("an action without its input")
    return calls, end
