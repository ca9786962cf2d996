"""Makes one readable message of an error and of the chain of its causes."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterator

from caopd.errors import CaopdError
from caopd.training.spelling import explained

MAX_LINES = 20
"""Most lines of an error message, about one screen."""


def message_of(error: BaseException, keys: Collection[str] = ()) -> str:
    """Return which setting is wrong, from the outermost error, and why, from the innermost.

    Args:
        error: What was raised, with the chain of its causes.
        keys: Every setting that there is, of which the nearest is named where one is unknown.
    """
    causes = list(_causes(error))
    own = [cause for cause in causes if isinstance(cause, CaopdError)]
    if own:
        return str(own[0])
    whole = str(error).strip()
    where, reason = whole.partition("\n")[0].rstrip(": "), explained(str(causes[-1]).strip(), whole, keys)
    lines = (reason if where in reason else f"{where}: {reason}").splitlines()
    return "\n".join([*lines[:MAX_LINES], "`caopd COMMAND --help` shows what every setting takes."])


def is_of_lightning(error: BaseException) -> bool:
    """Return whether Lightning itself raised the error, as it does where settings do not fit together."""
    frame = None
    for frame, _ in traceback.walk_tb(error.__traceback__):  # noqa: B007  # the last one is looked at
        pass
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("lightning.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
