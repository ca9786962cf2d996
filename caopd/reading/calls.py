r"""Finds the calls of tools in a text, in the form asked for or in the forms that chat templates teach models.

Read are, in this order, and only those of the first form that a text holds:

- lines ``Action:`` and ``Action Input:``, the form asked for (:mod:`caopd.reading.action_lines`);
- between marks (:mod:`caopd.reading.marked_calls`): ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``
  (Hermes, Qwen), ``<function=name>`` with ``<parameter=key>`` (Qwen 3 Coder), ``<arg_key>`` (GLM), ``<invoke
  name="...">`` (MiniMax), ``[TOOL_CALLS]`` (Mistral), ``<|python_tag|>`` (Llama), ``<|tool_call_start|>`` (LFM 2),
  ``<|tool_call_begin|>`` (Kimi), DeepSeek's and gpt-oss's;
- JSON objects or lists that are calls, in a fence or at the start of a line (Llama, OpenAI's form);
- lines or fences of ``name(key=value)``, in a list or not (Llama 4, Gemma, Olmo).
"""

from __future__ import annotations

import re

from caopd.reading.action_lines import REST_OF_LINE, action_calls
from caopd.reading.call_values import DECODER, Call, calls_of, expressions
from caopd.reading.marked_calls import marked_calls

_JSON_BEGINS = re.compile(r"^[ \t>*`-]*+(?=[{\[])", re.MULTILINE)
_MAX_JSON = 1000
"""Most lines that are tried as JSON: every one that is none takes a pass over the text before it."""
_NEXT_OBJECT = re.compile(r"[ \t]{0,8}[;,]?[ \t]{0,8}(?=\{)")
_CODE = re.compile(r"^[ \t]*```[ \t]*(?:\w{1,12})?[ \t]*\r?\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
_EXPRESSION = re.compile(r"^[ \t>*`-]*+(\[?[ \t]*[A-Za-z_][\w.-]*\(.*\)[ \t]*\]?)[ \t`*]*;?[ \t`]*$", re.MULTILINE)


def read_calls(text: str) -> list[Call]:
    r"""Return the calls of a text, in order.

    Args:
        text: A completion without its thoughts.

    Raises:
        ValueError: A call cannot be read.
        RecursionError: An input is nested too deeply.

    Examples:
        >>> read_calls('<tool_call>{"name": "search", "arguments": {"page": 1}}</tool_call>')[0].arguments
        {'page': 1}
        >>> [call.name for call in read_calls('search(page=1)\nopen(id="7")')]
        ['search', 'open']
    """
    for reader in (_action_calls, marked_calls, _json_calls, _expression_calls):
        calls = reader(text)
        if calls:
            return calls
    return []


def _action_calls(text: str) -> list[Call]:
    return list(action_calls(text))


def _json_calls(text: str) -> list[Call]:
    """Return the calls that stand as JSON at the start of a line; another object is no call."""
    calls: list[Call] = []
    position = number = 0
    while begins := _JSON_BEGINS.search(text, position):
        number += 1
        if number > _MAX_JSON:
            raise ValueError("too many objects to look at")
        try:
            value, end = DECODER.raw_decode(text, begins.end())
        except (ValueError, RecursionError):
            position = _line_end(text, begins.end())
            continue
        found = calls_of(value)
        while found and (next_one := _NEXT_OBJECT.match(text, end)):
            value, end = DECODER.raw_decode(text, next_one.end())
            calls, found = calls + found, calls_of(value)
        position = _line_end(text, end)
        if found and REST_OF_LINE.match(text, end) is None:
            raise ValueError("text behind a call")
        calls += found or []
    return calls


def _expression_calls(text: str) -> list[Call]:
    calls = [call for code in _CODE.finditer(text) for call in expressions(code[1]) or ()]
    return calls or [call for line in _EXPRESSION.finditer(text) for call in expressions(line[1]) or ()]


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end + 1
