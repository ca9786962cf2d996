"""Thinking: which part of a completion is thought, and which is said. No other module knows the markers of thoughts.

Chat models think between markers of their chat templates: ``<think>`` (DeepSeek-R1, Qwen 3, Phi 4, SmolLM 3),
``<thinking>``, ``<thought>``, ``[THINK]`` (Magistral), ``<seed:think>``, ``<|START_THINKING|>`` (Command A), or a
channel (``<|channel|>analysis`` of gpt-oss, ``<|channel>thought`` of Gemma 4), and those that the model's own template
declares (:mod:`caopd.rollouts.declared_marks`). A thought is no answer, no confidence,
no call. A marker in backticks or quotation marks is only mentioned: it opens and closes nothing. Work is linear: some
passes over the text, with bounded steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

Marks = tuple[tuple[str, str], ...]
"""Opening and closing marks of thinking that a chat template declares; an opening may be unknown, and is empty."""
_MARKER = re.compile(
    r"""[<\[\u25c1](?:                   # first a set of characters, which is searched for fast
      (?<=<)(?ai:(/?)(?:\w{1,12}:)?(?:think(?:ing)?|thought)>)
    | (?<=\[)(/?)THINK\]
    | (?<=\u25c1)(/?)think\u25b7
    | (?<=<)\|(?:START|begin|(END|end))_(?:of_)?(?:THINKING|thought)\|>
    | (?<=<)\|(?:open|(close))\|>think<\|sep\|>
    | (?<=<)\|channel\|?>(?:analysis|thought|(final))(?:<\|message\|>)?
    | (?<=<)(channel\|>))
    """,
    re.VERBOSE,
)
"""Matches every marker; a closing one has a group that is not empty."""
_MENTION = re.compile(
    r"""(?<!`)(`{1,2})(?!`)[^`\r\n]+\1 | "[^"\r\n]+" | \u201c[^\u201c\u201d\r\n]+\u201d
    | (?<!\w)['\u2018][<\[\u25c1][^'\u2019\r\n]{1,40}['\u2019]   # an apostrophe quotes nothing""",
    re.VERBOSE,
)
"""Matches quotations on one line; a marker at the start of a line is never quoted."""
_PART = re.compile(r"<\|(?:channel\|?|message\||open\||close\||sep\|)>|<channel\|>")
"""Matches tokens that make a marker only together with others."""
_NO_SPACE = re.compile(r"\S")
_LONGEST_MARKER = 40


def thoughts(text: str, begun: bool = False, marks: Marks = ()) -> Iterator[tuple[int, int]]:
    """Yield the character ranges of the thoughts in a completion, their markers included.

    A closing marker that nothing opened closes what precedes it: a chat template may open the thought in the prompt. A
    thought that nothing closes goes to the end.

    Args:
        text: A completion.
        begun: Whether the prompt is known to have opened a thought, so that the completion begins within one.
        marks: Further marks of thinking, which the model's chat template declares.

    Examples:
        >>> list(thoughts("B<think>or C?</think>!"))
        [(1, 21)]
        >>> list(thoughts("or C?</think>B"))
        [(0, 13)]
        >>> list(thoughts("B<muse>or C?</muse>!", marks=(("<muse>", "</muse>"),)))
        [(1, 19)]
    """
    start, spoken_from = 0 if begun else None, 0
    for marker in _markers(text, marks):
        if any(marker.groups()):
            yield (spoken_from if start is None else start), marker.end()
            start, spoken_from = None, marker.end()
        elif start is None:
            start = marker.start()
    if start is not None:
        yield start, len(text)


def _markers(text: str, marks: Marks) -> Iterator[re.Match[str]]:
    """Yield the markers, except those that are only mentioned."""
    mentions: Iterator[re.Match[str]] | None = None
    mention: re.Match[str] | None = None
    for marker in _marker(marks).finditer(text):
        if mentions is None:
            mentions = _MENTION.finditer(text)
            mention = next(mentions, None)
        while mention is not None and mention.end() <= marker.start():
            mention = next(mentions, None)
        if mention is None or marker.start() < mention.start():
            yield marker


@lru_cache(maxsize=32)
def _marker(marks: Marks) -> re.Pattern[str]:
    """Return what matches every marker, those that a template declares before the usual ones."""
    openings = "|".join(re.escape(opening) for opening, _ in marks if opening)
    closings = "|".join(re.escape(closing) for _, closing in marks)
    declared = [f"({closings})"] * bool(closings) + [f"(?:{openings})"] * bool(openings)
    return re.compile("|".join([*declared, _MARKER.pattern]), re.VERBOSE)


def said(text: str, begun: bool = False, marks: Marks = ()) -> str:
    r"""Return ``text`` with a line feed for every character of a thought: what is said keeps its position.

    Args:
        text: A completion.
        begun: Whether the prompt is known to have opened a thought, so that the completion begins within one.
        marks: As in :func:`thoughts`.

    Examples:
        >>> said("<think>C?</think>B") == "\n" * 17 + "B"
        True
    """
    return hidden(text, thoughts(text, begun, marks))


def hidden(text: str, ranges: Iterable[tuple[int, int]]) -> str:
    """Return ``text`` with a line feed for every character of some ranges, in order.

    Args:
        text: A completion.
        ranges: The character ranges of its thoughts.
    """
    parts, position = [], 0
    for start, end in ranges:
        parts += [text[position:start], "\n" * (end - start)]
        position = end
    return "".join([*parts, text[position:]])


def without_thoughts(text: str, ranges: Iterable[tuple[int, int]] | None = None) -> str:
    """Return what is said in ``text``, without the thoughts and the white space after each of them.

    Args:
        text: A completion.
        ranges: The character ranges of its thoughts; None finds them by the usual marks.
    """
    parts, position = [], 0
    for start, end in thoughts(text) if ranges is None else ranges:
        parts.append(text[position:start])
        behind = _NO_SPACE.search(text, end)
        position = len(text) if behind is None else behind.start()
    return "".join([*parts, text[position:]])


def said_beside(text: str, ranges: Sequence[tuple[int, int]], span: tuple[int, int] | None) -> str:
    """Return what is said in ``text`` beside a segment: without thoughts, and without the segment.

    Args:
        text: A completion.
        ranges: The character ranges of its thoughts.
        span: The character range of the segment, None for none.
    """
    start, end = span or (len(text), len(text))
    before = without_thoughts(text[:start], [each for each in ranges if each[1] <= start])
    behind = without_thoughts(text[end:], [(first - end, last - end) for first, last in ranges if first >= end])
    return before.rstrip() + behind


def ends_in_thought(text: str, begun: bool = False, marks: Marks = ()) -> bool:
    """Return whether ``text`` was cut, or ended, within a thought.

    Args:
        text: A completion.
        begun: Whether the prompt is known to have opened a thought, so that the completion begins within one.
        marks: As in :func:`thoughts`.

    Examples:
        >>> [ends_in_thought(text) for text in ("<think>so B", "<think>so</think>B", "so B")]
        [True, False, False]
    """
    open_thought = begun
    for marker in _markers(text, marks):
        open_thought = not any(marker.groups())
    return open_thought


def opens_thought(prompt: str, marks: Marks = ()) -> bool:
    r"""Return whether a prompt ends with a marker that opens a thought.

    Args:
        prompt: A prompt, or its end.
        marks: As in :func:`thoughts`.

    Examples:
        >>> opens_thought("What do <think> tags do?<|user_end|>"), opens_thought("2 + 2?<|assistant|><think>\n")
        (False, True)
    """
    end = prompt.rstrip()[-_LONGEST_MARKER:]
    markers = list(_marker(marks).finditer(end))
    return bool(markers) and markers[-1].end() == len(end) and not any(markers[-1].groups())


def is_marker(token: str) -> bool:
    """Return whether a token marks thinking, by itself or together with others.

    Examples:
        >>> [is_marker(token) for token in ("[THINK]", "</think>", "<|channel|>", "<|im_end|>")]
        [True, True, True, False]
    """
    return bool(_MARKER.fullmatch(token) or _PART.fullmatch(token))
