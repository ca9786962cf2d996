"""Shows names and texts of users: they may hold any characters, and are never read as markup."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caopd.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

# Control characters, ends of lines, overrides of the direction of writing; halves of surrogate pairs, which no encoding
# has: JSON may escape them alone, and Python makes them of bytes of the command line that are not UTF-8.
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "\\`*_[#"},
        # As entities, since not every dialect takes a backslash before these.
        **{sign: f"&#{ord(sign)};" for sign in "|~$"},
        "&": "&amp;",
        "<": "&lt;",
    }
)


def escaped(text: str) -> str:
    r"""Return a text for one line of a terminal, page or figure, with escape sequences for what cannot be shown.

    Args:
        text: Any text.

    Example:
        >>> print(escaped("Andr\udce9, 東京\nnext \x1b[31mline"))
        Andr\udce9, 東京\nnext \x1b[31mline
    """
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def escaped_lines(text: str) -> str:
    r"""Return a text of several lines, each as :func:`escaped` returns it, for a message or a traceback.

    Args:
        text: Any text.

    Example:
        >>> print(escaped_lines("error:\n\x1b[2Jrow"))
        error:
        \x1b[2Jrow
    """
    return "\n".join(map(escaped, text.split("\n")))


def shortened(text: str, most: int) -> str:
    """Return a text without its middle, where it is long, and with the number of characters that are left out.

    Args:
        text: Any text.
        most: Number of its characters that are kept.

    Example:
        >>> shortened("abcdefgh", 8), shortened("abcdefghi", 4)
        ('abcdefgh', 'ab [... 5 characters ...] hi')
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"


def in_markdown(text: str) -> str:
    r"""Return a text escaped for one line of Markdown or a cell of a table, where it is shown as it is.

    Args:
        text: Any text.

    Example:
        >>> print(in_markdown("a_b <c> | $d$"))
        a\_b &lt;c> &#124; &#36;d&#36;
    """
    return escaped(text).translate(_MARKDOWN)


def in_terminal(text: str) -> Text:
    """Return a text for a cell or a line that rich prints; in a plain string rich would look for markup and emoji.

    Args:
        text: Any text.
    """
    from rich.text import Text

    return Text(escaped(text))


def unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object's pairs as a dict, the hook of ``json.loads``, which itself keeps the last of equal keys.

    Args:
        pairs: Keys and values, in the order of the text.

    Raises:
        ValueError: A key stands twice, so that other programs may read another value.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def check_utf8(path: str | Path, what: str) -> None:
    """Raise if a path is not UTF-8: some libraries would, later and without naming the setting.

    Args:
        path: The path that such libraries will write to.
        what: Name of the setting, for the error.

    Raises:
        ConfigError: The path holds bytes that are not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"Expected {what} to be a path in UTF-8, but got {escaped(str(path))}: name another folder."
        ) from error


def escape_what_streams_lack() -> None:
    """Make standard output and error escape what their encoding does not have, in place of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # that of a notebook is not
            stream.reconfigure(errors="backslashreplace")
