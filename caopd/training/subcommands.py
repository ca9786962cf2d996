"""Runs Lightning's subcommands: every end has its exit status, and what a user can mend is said in one message."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pickle import UnpicklingError

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException
from transformers.utils import logging as transformers_logging

from caopd.commands.command_line import show_user_error
from caopd.errors import CaopdError, UserCodeError
from caopd.files import disk_full, full_disks_told_once
from caopd.texts import escaped_lines
from caopd.training import lightning_cli
from caopd.training.callbacks import ResumeCommand
from caopd.training.error_messages import is_of_lightning, message_of
from caopd.training.interrupts import ignored_interrupts_raised


def run(arguments: Sequence[str] | None = None, make: Callable[..., object] | None = None) -> int:
    """Run a Lightning subcommand and return the exit status.

    Args:
        arguments: Command line without the program's name; by default that of the process. The command comes first.
        make: Calls the command line's class, or one derived from it, and does more; None calls it and does no more.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    resume = ResumeCommand(given)
    try:
        _ignore_idle_warnings(given[0])
        with ignored_interrupts_raised(), full_disks_told_once():
            settings = lightning_cli.settings_of(given[0], [resume])
            (make or lightning_cli.CaopdCLI)(given[0], args=None if arguments is None else given, **settings)
    except UserCodeError as error:
        return show_user_error(error)
    except (CaopdError, ArgumentError, MisconfigurationException) as error:
        sys.stderr.write(escaped_lines(f"error: {message_of(error)}\n"))
        return error.exit_status if isinstance(error, CaopdError) else 2
    except (FileNotFoundError, PermissionError, UnpicklingError) as error:
        sys.stderr.write(escaped_lines(f"error: a file cannot be read or written: {message_of(error)}\n"))
        return 2
    except ValueError as error:
        if not is_of_lightning(error):
            raise
        sys.stderr.write(escaped_lines(f"error: {message_of(error)}\n"))
        return 2
    except SIGTERMException:
        return 128 + signal.SIGTERM
    except Exception as error:
        full = disk_full(error, None)  # of a file that a library writes
        if full is None:
            raise
        sys.stderr.write(escaped_lines(f"error: {full}\n"))
        return full.exit_status
    finally:
        resume.say()
    return 0


def _ignore_idle_warnings(command: str) -> None:
    """Silence what does not apply: there are no workers, the teacher is in evaluation mode on purpose, and a tip."""
    if command != "fit":  # nothing is saved, so it is no matter where
        warnings.filterwarnings("ignore", message="The dirpath has changed from")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training.*")
    # The data module resumes a round itself, from the rollouts on disk.
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_of_the_run)
    transformers_logging.disable_progress_bar()


def _is_of_the_run(record: logging.LogRecord) -> bool:
    """Return whether a message of Lightning's is about the run, and neither an advertisement nor about absent chips."""
    return not any(words in record.getMessage() for words in ("Tip: For seamless cloud", "TPU available: False"))
