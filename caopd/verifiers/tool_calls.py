"""Verifier of tool calls in ToolAlpaca's ``Action`` / ``Action Input`` form (arXiv 2306.05301)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from caopd.errors import DataError
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict

OPTIONAL_PREFIX = "[Optional]"
"""ToolAlpaca marks a call of a target that may be left out with this prefix of its name."""

_COLON = r"[*_`]{0,3}(?:[ \t]\d{1,2})?[*_`]{0,3}[ \t]{0,2}[:\uff1a][*_`]{0,3}"
_NUMBERED = r"(?:\d{1,2}[.)]\s*+[*_`]{0,3})?"
_ACTION = re.compile(rf"^[ \t>*_`#\u2022-]*+{_NUMBERED}(?ai:action){_COLON}", re.MULTILINE)
_ACTION_INPUT = re.compile(
    rf"[\s,;>*_`#\u2022-]*+{_NUMBERED}(?ai:action[ _]?input){_COLON}\s*+(?:`{{1,3}}\s*)?(?:(?ai:json|python)\s+)?"
)
_NAME = re.compile(r"[^\r\n]*?(?=[,;]?[ \t]{1,4}(?ai:action[ _]?input)|[\r\n]|\Z)")
_NAME_BELOW = re.compile(r"\s*+(?![*_`>#\u2022-]{0,3}\s?(?ai:action|thought|observation)\b)[^\r\n]+")
_MAX_NAME = 200
"""Largest length of a tool's name, in characters."""
_AROUND_NAME = " \t*`\"'<>[]{}.,;:"
_REMARK = re.compile(r"\s*\([^()]*\)$")
_VERB = re.compile(r"^(?:(?ai:use|call|invoke|run)\s+)?(?:(?ai:the)\s+)?(?=\S)")
_NOUN = re.compile(r"\s+(?ai:function|tool|action)$")
_NO_ACTION = re.compile(r"(?ai:none|no|nothing|n/a|finish)\b")
_REST_OF_LINE = re.compile(r"[ \t]*`{0,3}[ \t]*[.,;]?[ \t]*(?=[\r\n]|\Z|<[/|\uff5c])")
_UNREADABLE = (
    "A call could not be read: a line `Action:` takes an `Action Input:` with a JSON object, and nothing behind it."
)
_NO_CALL = "There is no call: a call is a line `Action:` with a tool's name, and an `Action Input:` with a JSON object."


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        name: Name of the tool.
        arguments: Its input as canonical JSON (sorted keys, ``1.0`` written ``1``).
        optional: Whether a completion may leave the call out.
    """

    name: str
    arguments: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ToolCalls:
    r"""A completion is right where all of its calls equal all calls of the target, in order.

    A call is a line ``Action: name`` followed by ``Action Input:`` and a JSON object, which may span lines. Upper and
    lower case of the two fields, markdown, list marks and code fences do not matter, nor what may stand around a name:
    quotes, brackets, a remark in brackets after it, "Use the ... tool". Nothing but white space, a fence or a full
    stop may follow the object on its line. ``Action: None`` without an input is no call.

    Inputs are compared as JSON: the order of keys does not matter, ``1`` equals ``1.0``, ``true`` does not equal ``1``.
    One call that cannot be read makes the whole answer MALFORMED; without a call it is MISSING. Thoughts
    (:mod:`caopd.reading.thinking`) are not read.

    Feedback on a wrong completion names its first call that is not right, and never the right one.

    The target is a JSON list of objects with ``Action`` and ``Action_Input``, the latter an object or an
    object as a JSON string. A call named ``[Optional]name`` may be left out.

    Attributes:
        first_call_only: Compare the first call alone, for single-step evaluation.

    Examples:
        >>> text = 'Thought: look it up\nAction: search\nAction Input: {"page": 1, "size": "small"}'
        >>> target = '[{"Action": "search", "Action_Input": {"size": "small", "page": 1.0}}]'
        >>> ToolCalls().verify(text, target).correct
        True
        >>> ToolCalls().verify("Action: search", target).outcome
        <AnswerOutcome.MALFORMED: 'malformed'>
    """

    first_call_only: bool = False

    def verify(self, text: str, target: str) -> Verdict:
        """Compare the calls in ``text`` with those of ``target``.

        Raises:
            DataError: ``target`` is not a list of calls.
        """
        wanted = parse_target(target)
        try:
            calls = list(_calls(said(text)))
        except (ValueError, RecursionError):
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MALFORMED, feedback=_UNREADABLE)
        if not calls:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MISSING, feedback=_NO_CALL)
        if self.first_call_only:
            calls = calls[:1]
        correct = self._matches(calls, wanted)
        feedback = None if correct else _mismatch(calls, wanted)
        return Verdict(correct, _canonical_answer(calls), AnswerOutcome.PARSED, feedback)

    def _matches(self, calls: Sequence[ToolCall], wanted: Sequence[ToolCall]) -> bool:
        reached = {0}  # how many calls the target's calls so far can account for
        for target in wanted:
            step = {n + 1 for n in reached if n < len(calls) and _same(calls[n], target)}
            reached = step | (reached if target.optional else set())
            if self.first_call_only and 1 in reached:
                return True
        return len(calls) in reached


def _mismatch(calls: Sequence[ToolCall], wanted: Sequence[ToolCall]) -> str:
    """Say which call is the first that no reading of the target accounts for, and in what it is wrong."""
    starts = {0}  # where in the target the rest of it may begin, after the calls so far
    for number, call in enumerate(calls, start=1):
        possible = {place for start in starts for place in _next_places(wanted, start)}
        starts = {place + 1 for place in possible if _same(call, wanted[place])}
        if not starts:
            named = any(wanted[place].name == call.name for place in possible)
            wrong = "has a wrong input" if named else "is not the tool that is needed there"
            return f"Call {number}, {_shortened(call.name, 60)}, {wrong}."
    return f"{len(calls)} call{'s are' if len(calls) > 1 else ' is'} not enough: at least one more is needed."


def _next_places(wanted: Sequence[ToolCall], start: int) -> Iterator[int]:
    """Yield the places of the target that the next call may stand for: optional calls may be left out."""
    for place in range(start, len(wanted)):
        yield place
        if not wanted[place].optional:
            return


def parse_target(target: str) -> tuple[ToolCall, ...]:
    r"""Read a target.

    Args:
        target: JSON list of objects with ``Action`` and ``Action_Input``.

    Raises:
        DataError: It is not such a list, it is empty, or an ``Action_Input`` is not a JSON object.

    Examples:
        >>> parse_target('[{"Action": "search", "Action_Input": "{\\"page\\": 1}"}]')
        (ToolCall(name='search', arguments='{"page": 1}', optional=False),)
    """
    try:
        calls = json.loads(target)
        if not isinstance(calls, list) or not calls:
            raise ValueError("not a list with at least one call")
        return tuple(_target_call(call) for call in calls)
    except (ValueError, RecursionError) as error:
        raise DataError(
            'Expected the target of a tool-use task to be a JSON list of {"Action": name, "Action_Input": '
            f"JSON object}}, but got {_shortened(target)} ({error}). Correct the answer, or exclude the row."
        ) from error


def _target_call(call: object) -> ToolCall:
    if not isinstance(call, dict) or not isinstance(call.get("Action"), str) or "Action_Input" not in call:
        raise ValueError("a call without Action or Action_Input")
    name, arguments = call["Action"].strip(), call["Action_Input"]
    if isinstance(arguments, str):
        arguments = _DECODER.decode(arguments)
    optional = name.startswith(OPTIONAL_PREFIX)
    return ToolCall(_name(name.removeprefix(OPTIONAL_PREFIX)), _canonical(arguments), optional)


def _calls(text: str) -> Iterator[ToolCall]:
    """Yield the calls of ``text``; raise ValueError or RecursionError at the first that cannot be read."""
    position = 0
    while action := _ACTION.search(text, position):
        named = _NAME.match(text, action.end())
        if named is not None and not named[0].strip():
            named = _NAME_BELOW.match(text, named.end()) or named
        name = _name("" if named is None else named[0])
        position = action.end() if named is None else named.end()
        marker = _ACTION_INPUT.match(text, position)
        if marker is None and _NO_ACTION.match(name):
            continue
        if not name or marker is None:
            raise ValueError("an action without its input")
        arguments, position = _DECODER.raw_decode(text, marker.end())
        if _REST_OF_LINE.match(text, position) is None:
            raise ValueError("text behind the input")
        yield ToolCall(name, _canonical(arguments))


def _name(text: str) -> str:
    """Return a tool's name without what may stand around it; nothing for a text that is too long for a name."""
    name = text.strip()
    if len(name) > _MAX_NAME:
        return ""
    name = _NOUN.sub("", _VERB.sub("", _REMARK.sub("", name.strip(_AROUND_NAME))))
    return name.strip(_AROUND_NAME)


def _canonical(arguments: object) -> str:
    if not isinstance(arguments, dict):
        raise ValueError("an input that is not a JSON object")
    return json.dumps(_normalised(arguments), sort_keys=True)


def _normalised(value: object) -> object:
    if isinstance(value, dict):
        return {key: _normalised(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normalised(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number beyond the range of floats")
        return int(value) if value.is_integer() else value
    return value


def _canonical_answer(calls: Sequence[ToolCall]) -> str:
    rendered = [f'{{"Action": {json.dumps(c.name)}, "Action_Input": {c.arguments}}}' for c in calls]
    return f"[{', '.join(rendered)}]"


def _same(call: ToolCall, target: ToolCall) -> bool:
    return (call.name, call.arguments) == (target.name, target.arguments)


def _shortened(text: str, length: int = 200) -> str:
    return repr(text if len(text) <= length else text[:length] + "...")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
