"""Verifier of calls of tools; the form asked for is ToolAlpaca's ``Action`` / ``Action Input`` (arXiv 2306.05301)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from caopd.errors import DataError
from caopd.reading.call_values import DECODER, tool_name, without_optional
from caopd.reading.calls import read_calls
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.base import Verifier

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
        is_typed: Whether its form tells the text ``"7"`` from the number ``7``.
    """

    name: str
    arguments: str
    optional: bool = False
    is_typed: bool = True


@dataclass(frozen=True)
class ToolCalls(Verifier):
    r"""A completion is right where all of its calls equal all calls of the target, in order.

    A call is a line ``Action: name`` followed by ``Action Input:`` and a JSON object, which may span lines. Upper and
    lower case of the two fields, markdown, list marks and code fences do not matter, nor what may stand around a name:
    quotes, brackets, ``[Optional]``, a remark in brackets after it, "Use the ... tool". Nothing but white space, a
    fence or a full stop may follow the object on its line. ``Action: None`` without an input is no call. Calls in the
    other forms of :mod:`caopd.reading.calls` are judged alike, with the outcome OTHER_FORM.

    Inputs are compared as JSON: the order of keys does not matter, ``1`` equals ``1.0``, ``true`` does not equal ``1``;
    values of a form that does not tell texts from numbers are compared as text.
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
            written = read_calls(said(text))
            calls = [ToolCall(call.name, _canonical(call.arguments), is_typed=call.is_typed) for call in written]
        except (ValueError, RecursionError):
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MALFORMED, feedback=_UNREADABLE)
        if not calls:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MISSING, feedback=_NO_CALL)
        if self.first_call_only:
            calls = calls[:1]
        correct = self._matches(calls, wanted)
        feedback = None if correct else _mismatch(calls, wanted)
        is_asked = all(call.is_asked for call in written)
        outcome = AnswerOutcome.PARSED if is_asked else AnswerOutcome.OTHER_FORM
        return Verdict(correct, _canonical_answer(calls), outcome, feedback)

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
        (ToolCall(name='search', arguments='{"page": 1}', optional=False, is_typed=True),)
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


def written_name(name: str) -> str:
    """Return the name of a target's call as a completion should write it: without the mark ``[Optional]``.

    Args:
        name: ``Action`` of a target.

    Example:
        >>> written_name("[Optional]updateUserProfile")
        'updateUserProfile'
    """
    return without_optional(name).strip()


def _target_call(call: object) -> ToolCall:
    if not isinstance(call, dict) or not isinstance(call.get("Action"), str) or "Action_Input" not in call:
        raise ValueError("a call without Action or Action_Input")
    arguments = call["Action_Input"]
    if isinstance(arguments, str):
        arguments = DECODER.decode(arguments)
    optional = written_name(call["Action"]) != call["Action"].strip()
    return ToolCall(tool_name(call["Action"]), _canonical(arguments), optional)


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
    if call.name != target.name:
        return False
    return call.arguments == target.arguments or (
        not call.is_typed and _untyped(call.arguments) == _untyped(target.arguments)
    )


def _untyped(arguments: str) -> dict[str, str]:
    """Return every value of an input as text, as forms without types write it."""
    return {key: _untyped_value(value) for key, value in json.loads(arguments).items()}


def _untyped_value(value: object) -> str:
    if isinstance(value, str):
        try:
            value = DECODER.decode(value.strip())
        except (ValueError, RecursionError):
            return str(value)
    return json.dumps(_normalised(value), sort_keys=True)


def _shortened(text: str, length: int = 200) -> str:
    return repr(text if len(text) <= length else text[:length] + "...")
