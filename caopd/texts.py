"""Names and texts of users as they are shown and written: any characters, and never markup."""

from __future__ import annotations

import io
import re
import sys
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
    r"""Return a text with what cannot be shown as escape sequences: for one line of a terminal, page or figure.

    Args:
        text: Any.

    Example:
        >>> print(escaped("Andr\udce9, 東京\nnext \x1b[31mline"))
        Andr\udce9, 東京\nnext \x1b[31mline
    """
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def in_markdown(text: str) -> str:
    r"""Return a text for one line of Markdown, a cell of a table too, where it shows as it is.

    Args:
        text: Any.

    Example:
        >>> print(in_markdown("a_b <c> | $d$"))
        a\_b &lt;c> &#124; &#36;d&#36;
    """
    return escaped(text).translate(_MARKDOWN)


def in_terminal(text: str) -> Text:
    """Return a text for a cell or a line that rich prints; a plain string would be read for markup and emoji.

    Args:
        text: Any.
    """
    from rich.text import Text

    return Text(escaped(text))


def write_text(path: Path, text: str) -> None:
    r"""Write a file in UTF-8; what UTF-8 does not have becomes ``\udce9``, which JSON reads back as it was.

    Args:
        path: In a folder that is there.
        text: Any.
    """
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def check_utf8(path: str | Path, what: str) -> None:
    """Raise where libraries that take paths in UTF-8 alone would, later and without a word on the setting.

    Args:
        path: Where they will write.
        what: Names it in the error.

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
    """Let standard output and error escape what their encoding does not have, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's is not
            stream.reconfigure(errors="backslashreplace")
