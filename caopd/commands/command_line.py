"""What the commands outside Lightning share: parsing arguments, printing an error as one message."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from caopd.errors import CaopdError, UserCodeError
from caopd.texts import escaped_lines


def run_command(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None], arguments: Sequence[str]
) -> int:
    """Parse a command line, do its work and return the exit status: 0, 2 after an error's message, or 1.

    Args:
        parser: The command's parser.
        work: Does the command's work with the parsed arguments.
        arguments: Command line after the command's name.
    """
    try:
        work(parser.parse_args(arguments))
    except SystemExit as stop:  # raised by the parser: 0 after --help, 2 after its own message
        return int(stop.code or 0)
    except UserCodeError as error:
        return show_user_error(error)
    except CaopdError as error:
        sys.stderr.write(escaped_lines(f"error: {error}\n"))
        return error.exit_status
    except OSError as error:
        sys.stderr.write(escaped_lines(f"error: a file cannot be read or written: {error}\n"))
        return 2
    return 0


def show_user_error(error: UserCodeError) -> int:
    """Write the traceback of the user's code, then what the code was asked to do; return the exit status, 1.

    Args:
        error: The error, mostly raised from the exception of the user's code.
    """
    shown = error.own_traceback
    if error.__cause__ is not None and not shown:
        shown = "".join(traceback.format_exception(error.__cause__))
    sys.stderr.write(escaped_lines(f"{shown}\nerror: {error}\n"))
    return 1
