"""The exceptions that caopd raises on purpose. Messages say what was expected, what came, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class CaopdError(Exception):
    """Root of every error that caopd raises on purpose; the command line prints its message without a traceback."""

    exit_status: ClassVar[int] = 2
    """Exit status of the command line: 2 where the input can be known to be wrong beforehand, 1 where a run failed."""


class ConfigError(CaopdError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(CaopdError, ValueError):
    """A file or a row of a data set that cannot be used as it is."""


class PromptTooLongError(CaopdError, ValueError):
    """A prompt or a teacher context that would have to be cut to fit the model."""


class ModelError(CaopdError, ValueError):
    """A model or tokenizer that lacks something that training needs."""


class RolloutError(CaopdError, RuntimeError):
    """Rollouts that cannot be trained on: wrong policy version, or an engine that failed."""

    exit_status = 1


class ServerLostError(RolloutError):
    """A server that does not answer, or fails, whatever it is asked for: others may do its work."""


class EngineDiedError(CaopdError, RuntimeError):
    """An inference engine whose process ended; it can be started again."""

    exit_status = 1


class DiskFullError(CaopdError, OSError):
    """A file for which there is no room."""

    exit_status = 1


class PeerError(CaopdError, RuntimeError):
    """Another process of the same run failed or ended, so that this one cannot go on."""

    exit_status = 1


class NonFiniteError(CaopdError, ArithmeticError):
    """A loss, a gradient or weights that are not finite."""

    exit_status = 1


class UserCodeError(CaopdError, RuntimeError):
    """A class that the config names raised an exception of its own, which is the cause of this error.

    Args:
        message: The message.
        own_traceback: The exception's traceback as text, where it was raised in another process; else empty.
    """

    exit_status = 1

    def __init__(self, message: str, own_traceback: str = "") -> None:
        super().__init__(message)
        self.own_traceback = own_traceback


class UnansweredError(CaopdError, RuntimeError):
    """A call of the user's code that did not return within its time, or during which its process ended."""

    exit_status = 1


@contextmanager
def user_code(part: object, where: str) -> Iterator[None]:
    """Run, in a ``with`` block, code of a class that the config names: what it raises becomes an error that names both.

    Args:
        part: An instance of the class.
        where: What the class was asked about, such as ``example '17'``.

    Raises:
        UserCodeError: The block raised anything but an error that caopd raises on purpose.
    """
    try:
        yield
    except CaopdError:
        raise
    except Exception as error:
        raise user_error(part, where, error) from error


def user_error(part: object, where: str, error: Exception, own_traceback: str = "") -> UserCodeError:
    """Return the error that names a class of the config and what it was asked about; ``error`` is to be its cause."""
    return UserCodeError(
        f"Expected {name_of(part)} to deal with {where}, but it raised {type(error).__name__}: {error}. Correct "
        "the class, or what it needs; its own traceback stands above.",
        own_traceback,
    )


def name_of(part: object) -> str:
    """Return the path of an object's class, as a config names it."""
    return f"{type(part).__module__}.{type(part).__qualname__}"
