"""Reads calls of tools between the marks that chat templates put around them."""

from __future__ import annotations

import re

from caopd.reading.call_values import DECODER, Call, calls_of, expressions, tool_name

_NAME = r"[A-Za-z_][\w.\-]{0,199}"
_DEEPSEEK = "[|\uff5c]"
_MARK = re.compile(
    rf"""(?P<before_json>                  # a name, and its input as JSON
      (?: <\|tool_call_begin\|>\s*(?:functions\.)?(?P<kimi>{_NAME})(?::\d+)?\s*<\|tool_call_argument_begin\|>
      | <{_DEEPSEEK}tool[_\u2581]call[_\u2581]begin{_DEEPSEEK}>(?:function<{_DEEPSEEK}tool[_\u2581]sep{_DEEPSEEK}>)?
        (?P<deepseek>{_NAME})\s*(?:<{_DEEPSEEK}tool[_\u2581]sep{_DEEPSEEK}>\s*)?(?:```json)?
      | <\|channel\|>commentary\s+to=(?:functions\.)?(?P<gpt>{_NAME})\s*(?:<\|constrain\|>\s*)?(?:json\s*)?<\|message\|>
      | \[TOOL_CALLS\]\s*(?P<mistral>{_NAME})\s*(?:\[CALL_ID\]\w*\s*)?(?:\[ARGS\])?
      | <function=(?P<llama>{_NAME})>(?=\s*\{{) )\s*)
    | (?P<before_tags>                     # a name, and its input in tags
      (?:<tool_call>\s*)?<function=(?P<qwen>{_NAME})>
      | <invoke\s+name="(?P<invoke>{_NAME})">
      | <tool_call>\s*(?P<glm>{_NAME})\s*(?=<arg_key>|</tool_call>) )
    | (?: <(?:tool_calls?|function_call)> | \[TOOL_CALLS\] | <\|python_tag\|> | <\|tool_call(?:_start)?\|>
      | \bfunctools(?=\[) )\s*(?:```(?:json)?\s*)?      # calls as JSON, or as expressions""",
    re.VERBOSE,
)
"""Matches what stands before a call."""
_PARAMETER = re.compile(
    r"""<parameter=(?P<qwen>[^<>\s"]{1,200})> | <parameter\s+name="(?P<invoke>[^<>"]{1,200})"[^<>]{0,40}>
    | <arg_key>\s{0,8}(?P<glm>[^<>\s]{1,200})\s{0,8}</arg_key>\s{0,8}<arg_value>""",
    re.VERBOSE,
)
_PARAMETER_ENDS = re.compile(r"</parameter>|</arg_value>")
_CALL_ENDS = re.compile(r"</(?:function|invoke|tool_call)>")
_BETWEEN = re.compile(r"\s*+(?:;\s*+)?")
_CLOSES = re.compile(r"</[\w:]{1,40}>|<\|/?\w{1,40}\|>|\[/TOOL_CALLS\]|```")


def marked_calls(text: str) -> list[Call]:
    r"""Return the calls of a text that stand between marks, in order; an empty list where there is no mark.

    Args:
        text: A completion without its thoughts.

    Raises:
        ValueError: What a mark announces cannot be read as calls.
        RecursionError: An input is nested too deeply.

    Examples:
        >>> marked_calls("<function=search>\n<parameter=page>\n1\n</parameter>\n</function>")
        [Call(name='search', arguments={'page': 1}, is_asked=False, is_typed=False)]
    """
    calls: list[Call] = []
    position = 0
    while mark := _MARK.search(text, position):
        if mark["before_tags"]:
            some, position = _in_tags(text, mark)
        elif mark["before_json"]:
            arguments, position = DECODER.raw_decode(text, mark.end())
            some = [Call(_name(mark), arguments)]
        else:
            some, position = _in_mark(text, mark.end())
        calls += some
    return calls


def _name(mark: re.Match[str]) -> str:
    return tool_name(next(name for key, name in mark.groupdict().items() if name and not key.startswith("before_")))


def _in_mark(text: str, start: int) -> tuple[list[Call], int]:
    """Read JSON values, one after the other, or expressions."""
    calls: list[Call] = []
    position = start
    while text[position : position + 1] == "{" or text[position : position + 2] in ("[{", "[\n", "[ "):
        value, end = DECODER.raw_decode(text, position)
        found = calls_of(value)
        if found is None:
            raise ValueError("an object that is no call")
        calls += found
        between = _BETWEEN.match(text, end)
        position = end if between is None else between.end()
    if not calls:
        closing = _CLOSES.search(text, start)
        position = len(text) if closing is None else closing.start()
        calls = expressions(text[start:position]) or []
    if not calls:
        raise ValueError("a mark without a call")
    return calls, position


def _in_tags(text: str, mark: re.Match[str]) -> tuple[list[Call], int]:
    """Read a name's parameters, each between tags: the text ``7`` and the number are written alike."""
    arguments: dict[str, object] = {}
    position = mark.end()
    while True:
        closing, parameter = _CALL_ENDS.search(text, position), _PARAMETER.search(text, position)
        if closing is None:
            raise ValueError("a call that is not closed")
        if parameter is None or parameter.start() > closing.start():
            break
        ends = _PARAMETER_ENDS.search(text, parameter.end())
        if ends is None:
            raise ValueError("a parameter that is not closed")
        arguments[str(parameter[parameter.lastgroup or 0])] = _guessed(text[parameter.end() : ends.start()])
        position = ends.end()
    return [Call(_name(mark), arguments, is_typed=False)], closing.end()


def _guessed(value: str) -> object:
    """Return what a value is as JSON, or the text itself without the ends of lines around it."""
    try:
        return DECODER.decode(value.strip())
    except (ValueError, RecursionError):
        return value.strip("\r\n")
