"""What the commands outside Lightning share: arguments in, exit status out, errors as one message."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from caopd.errors import CaopdError, UserCodeError


def run_command(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None], arguments: Sequence[str]
) -> int:
    """Parse a command line, do its work and return the exit status: 0, 2 behind an error's message, or 1.

    Args:
        parser: Of the command.
        work: Takes what was parsed.
        arguments: Command line behind the command's name.
    """
    try:
        work(parser.parse_args(arguments))
    except SystemExit as stop:  # the parser's: 0 behind --help, 2 behind its own message
        return int(stop.code or 0)
    except UserCodeError as error:
        return show_user_error(error)
    except CaopdError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    except OSError as error:
        sys.stderr.write(f"error: a file cannot be read or written: {error}\n")
        return 2
    return 0


def show_user_error(error: UserCodeError) -> int:
    """Write the traceback of the user's code, and behind it what it was to do; return the exit status, 1.

    Args:
        error: Raised from the user's own.
    """
    cause = traceback.format_exception(error.__cause__)
    sys.stderr.write("".join([*cause, f"\nerror: {error}\n"]))
    return 1
