"""What the commands outside Lightning share: arguments in, exit status out, errors as one message."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from caopd.errors import CaopdError


def run_command(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None], arguments: Sequence[str]
) -> int:
    """Parse a command line, do its work and return the exit status: 0, or 2 behind an error's message.

    Args:
        parser: Of the command.
        work: Takes what was parsed.
        arguments: Command line behind the command's name.
    """
    try:
        work(parser.parse_args(arguments))
    except SystemExit as stop:  # the parser's: 0 behind --help, 2 behind its own message
        return int(stop.code or 0)
    except CaopdError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: a file cannot be read or written: {error}\n")
        return 2
    return 0
