"""What calls of tools are made of: names, JSON objects that are calls, and expressions ``name(key=value)``."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Sequence
from keyword import kwlist
from typing import NamedTuple, NoReturn

_MAX_NAME = 200
"""Largest length of a tool's name, in characters."""
_MAX_EXPRESSION = 20_000
"""Length, in characters, of the longest text that is read as expressions."""
_AROUND_NAME = " \t*`\"'<>[]{}.,;:"
_OPTIONAL = re.compile(r"\A[\s*_`\"']{0,4}\[\s{0,4}(?ai:optional)\s{0,4}\]\s*")
_REMARK = re.compile(r"\s*\([^()]*\)$")
_VERB = re.compile(r"^(?:(?ai:use|call|invoke|run)\s+)?(?:(?ai:the)\s+)?(?=\S)")
_NOUN = re.compile(r"\s+(?ai:function|tool|action)$")
_NAMESPACE = re.compile(r"(?:functions|default_api)\.")
_NAME_KEYS = ("name", "tool_name", "function_name", "tool", "function", "action")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "tool_input", "action_input", "kwargs")
_WRAPPERS = ("tool_calls", "tool_call", "function_call", "function_calls", "function")
# Names of arguments and of tools that Python does not allow: they are written otherwise while Python reads them.
_FOR_RESERVED, _FOR_HYPHEN = "reserved7q_", "hyphen7q_"
_RESERVED = re.compile(rf"\b({'|'.join(kwlist)})(?=\s?=(?!=))")
_HYPHEN = re.compile(r"(?<=\w)-(?=[\w.-]{0,200}\()")
_CONSTANTS = {"true": True, "false": False, "null": None}


class Call(NamedTuple):
    """A call of a tool, as a completion writes it.

    Attributes:
        name: Name of the tool.
        arguments: Its input.
        is_asked: Whether it is written in the form asked for.
        is_typed: Whether the form tells the text ``"7"`` from the number ``7``.
    """

    name: str
    arguments: object
    is_asked: bool = False
    is_typed: bool = True


def without_optional(name: str) -> str:
    """Return a name without ``[Optional]`` before it, ToolAlpaca's mark of a call that may be left out."""
    return _OPTIONAL.sub("", name, count=1)


def tool_name(text: str) -> str:
    """Return a tool's name without what may stand around it; nothing for a text that is too long for a name.

    Names of targets and of completions both go through here, so that equal names are equal.

    Examples:
        >>> tool_name("Use the `search` tool"), tool_name("[Optional]search"), tool_name("search()")
        ('search', 'search', 'search')
    """
    name = text.strip()
    if len(name) > _MAX_NAME:
        return ""
    name = without_optional(name).strip(_AROUND_NAME)
    name = _NOUN.sub("", _VERB.sub("", _REMARK.sub("", name)))
    return name.strip(_AROUND_NAME)


def calls_of(value: object) -> list[Call] | None:
    """Return the calls that a JSON value is, in the order of the text; None where it is something else.

    A call is an object with a name and an input, such as ``{"name": ..., "arguments": {...}}``, where the input may be
    JSON in a text; OpenAI's objects around it, and lists of calls, are read alike.

    Args:
        value: What a JSON text holds.

    Examples:
        >>> calls_of({"type": "function", "function": {"name": "search", "arguments": '{"page": 1}'}})
        [Call(name='search', arguments={'page': 1}, is_asked=False, is_typed=True)]
        >>> calls_of({"page": 1})
    """
    if isinstance(value, list):
        every = [calls_of(item) for item in value]
        return None if not every or None in every else [call for calls in every for call in calls or ()]
    if not isinstance(value, dict):
        return None
    fields = {str(key).lower().replace(" ", "_"): item for key, item in value.items()}
    for wrapper in _WRAPPERS:
        if isinstance(fields.get(wrapper), dict | list):
            return calls_of(fields[wrapper])
    names = [fields[key] for key in _NAME_KEYS if key in fields]
    arguments = [fields[key] for key in _ARGUMENT_KEYS if key in fields]
    if len(names) != 1 or len(arguments) != 1 or not isinstance(names[0], str):
        return None
    name = tool_name(_NAMESPACE.sub("", names[0], count=1))
    if not name or not isinstance(arguments[0], dict | str):
        return None
    return [Call(name, DECODER.decode(arguments[0]) if isinstance(arguments[0], str) else arguments[0])]


def expressions(text: str) -> list[Call] | None:
    """Return the calls of a text of expressions ``name(key=value)`` alone, in a list or not; None for another text.

    Values are literals of Python or JSON. What is called by position cannot be compared with an input.

    Args:
        text: Any text.

    Examples:
        >>> expressions('[search(page=1), open(id="7", new=true)]')[1].arguments
        {'id': '7', 'new': True}
        >>> expressions("f(x)"), expressions("x = f(a=1)")
        (None, None)
    """
    if len(text) > _MAX_EXPRESSION or not text.rstrip().endswith((")", "]", ";")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of odd escapes in a completion
            warnings.simplefilter("ignore", DeprecationWarning)
            body = ast.parse(_HYPHEN.sub(_FOR_HYPHEN, _RESERVED.sub(rf"{_FOR_RESERVED}\1", text.strip()))).body
            nodes = [_unwrapped(item) for statement in body for item in _items(statement)]
            return [_call(node) for node in nodes] or None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _items(statement: ast.stmt) -> Sequence[ast.expr]:
    if not isinstance(statement, ast.Expr):
        raise ValueError("no expression")
    return statement.value.elts if isinstance(statement.value, ast.List) else [statement.value]


def _unwrapped(node: ast.expr) -> ast.expr:
    """Return what is printed, where a call is printed."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
        return node.args[0] if len(node.args) == 1 and not node.keywords else node
    return node


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or not isinstance(node.func, ast.Name | ast.Attribute):
        raise ValueError("no call by keywords")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise ValueError("no name of an argument")
        arguments[keyword.arg] = ast.literal_eval(_Constants().visit(keyword.value))
    written = json.dumps([ast.unparse(node.func), arguments])  # sets, bytes and complex numbers are no JSON
    name, arguments = json.loads(written.replace(_FOR_RESERVED, "").replace(_FOR_HYPHEN, "-"))
    return Call(_NAMESPACE.sub("", name, count=1), arguments)


class _Constants(ast.NodeTransformer):
    """Takes JSON's constants, which Python reads as names, for what they are."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_CONSTANTS[node.id]) if node.id in _CONSTANTS else node


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)
"""Reads JSON as the standard has it: without ``NaN``."""
