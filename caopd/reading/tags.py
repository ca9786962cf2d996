"""Finds elements in tags, such as ``<answer>B</answer>``, as models write them."""

from __future__ import annotations

import re
from typing import NamedTuple

from caopd.reading.quoting import Quotations


class Element(NamedTuple):
    """The last element with a given name in a text.

    Attributes:
        start: Position of its opening tag.
        content: Character range between its tags; it goes to the end of the text where nothing closes it.
        end: Position after its closing tag.
        is_closed: Whether there is a closing tag.
        is_plain: Whether both tags are written exactly as asked for, but for upper and lower case.
    """

    start: int
    content: tuple[int, int]
    end: int
    is_closed: bool
    is_plain: bool


def last_element(text: str, name: str) -> Element | None:
    r"""Return the element of the last opening tag; None where there is no such tag.

    White space within a tag, and a backslash for the slash, do not matter. An opening tag after which nothing stands
    closes the one before it. Quoted tags do not count.

    Args:
        text: Any text.
        name: Name of the element.

    Examples:
        >>> last_element("<answer>A</answer> or <answer>B<\\answer>", "answer").content
        (30, 31)
    """
    tags = list(re.finditer(rf"<\s{{0,4}}([/\\]?)\s{{0,4}}(?ai:{name})\s{{0,4}}>", text))
    if tags:
        quotations = Quotations(text)
        tags = [tag for tag in tags if tag.start() not in quotations]
    index = max((index for index, tag in enumerate(tags) if not tag[1]), default=None)
    if index is None:
        return None
    is_closing = index == len(tags) - 1 > 0 and not tags[index - 1][1] and not text[tags[index].end() :].strip()
    opening = tags[index - 1] if is_closing else tags[index]
    behind = tags[index if is_closing else index + 1 :]
    if not behind:
        return Element(opening.start(), (opening.end(), len(text)), len(text), is_closed=False, is_plain=False)
    closing = behind[0]
    is_plain = (opening[0].lower(), closing[0].lower()) == (f"<{name}>", f"</{name}>")
    return Element(opening.start(), (opening.end(), closing.start()), closing.end(), True, is_plain)
