"""Shows rows of progress: in a terminal as bars that are drawn again and again, elsewhere as lines now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from caopd.texts import in_terminal

_BAR_WIDTH = 16
_WIDTHS = (10, _BAR_WIDTH, 21, 6, 21)
"""Least widths of the columns, so that they stay where they are: 78 characters in all."""
_REDRAWS_PER_SECOND = 2.0
_SECONDS_BETWEEN_LINES = 60.0
_SHOWN_DECIMALS_BELOW = 10.0


@dataclass
class Row:
    """How far something has come.

    Attributes:
        name: What it is.
        unit: What is counted; empty shows no count.
        total: How many there are; None where nobody knows.
        done: How many are done.
        seconds_left: Says how long it will still take; None takes it from the rate.
        begun: When it began, in seconds of a monotonic clock.
    """

    name: str
    unit: str = ""
    total: float | None = None
    done: float = 0.0
    seconds_left: Callable[[], float | None] | None = None
    begun: float = field(default_factory=lambda: time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.begun

    @property
    def left(self) -> float | None:
        """Seconds that it will still take; None where nobody knows."""
        if self.seconds_left is not None:
            return self.seconds_left()
        if self.total is None or self.done <= 0:
            return None
        return self.elapsed / self.done * max(0.0, self.total - self.done)

    @property
    def amount(self) -> str:
        """How many are done, of how many."""
        return "" if self.total is None or not self.unit else f"{int(self.done)}/{int(self.total)} {self.unit}"

    @property
    def rate(self) -> str:
        """How many are done in a second; of a row whose time left is not made of it, nothing."""
        if not self.unit or self.seconds_left is not None or self.done <= 0 or self.elapsed <= 0:
            return ""
        rate = self.done / self.elapsed
        return f"{rate:.2f}/s" if rate < _SHOWN_DECIMALS_BELOW else f"{rate:.0f}/s"

    def words(self) -> str:
        """Return the row as words for a line."""
        left = "" if self.left is None else f"{clock_time(self.left)} left"
        return ", ".join(filter(None, [f"{self.name} {self.amount}".strip(), self.rate, left]))


class ProgressRows:
    """Rows of progress, and values below them.

    Args:
        console: Where they are shown.
    """

    def __init__(self, console: Console) -> None:
        self.rows: list[Row] = []
        self.values: Mapping[str, float] = {}
        # In a notebook rich draws with ipywidgets; without it, nothing but a warning would be shown.
        self.is_live = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
        self._console = console
        self._live: Live | None = None
        self._last_line = time.monotonic()

    def start(self) -> None:
        """Begin to draw, where there is a terminal."""
        if self.is_live and self._live is None:
            settings = {"console": self._console, "refresh_per_second": _REDRAWS_PER_SECOND, "transient": True}
            self._live = Live(get_renderable=self._drawn, **settings)  # type: ignore[arg-type]
            self._live.start()

    def stop(self) -> None:
        """Take the rows away, so that what is printed next stands in their place."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def redraw(self) -> None:
        """Draw at once, where a change is worth it."""
        if self._live is not None:
            self._live.refresh()

    def advanced(self) -> None:
        """Say a line where there is no terminal and none has been said for a while."""
        if not self.is_live and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self.say("; ".join(row.words() for row in self.rows))

    def say(self, line: str) -> None:
        """Print a line, above the rows if they are drawn.

        Args:
            line: Any text.
        """
        self._last_line = time.monotonic()
        self._console.print(in_terminal(line), soft_wrap=True, highlight=False)

    def _drawn(self) -> Group:
        values = Text(named_values(self.values), style="italic", no_wrap=True, overflow="ellipsis")
        if self._console.width < sum(_WIDTHS) + len(_WIDTHS) - 1:
            return Group(*(Text(row.words(), no_wrap=True, overflow="ellipsis") for row in self.rows), values)
        table = Table.grid(padding=(0, 1))
        for width in _WIDTHS:
            table.add_column(no_wrap=True, min_width=width)
        for row in self.rows:
            table.add_row(*_cells(row))
        return Group(table, values)


def _cells(row: Row) -> Iterable[ProgressBar | Text]:
    total = None if row.total is None else max(row.total, 1e-9)
    yield Text(row.name)
    yield ProgressBar(total=total, completed=row.done, width=_BAR_WIDTH, pulse=total is None)
    yield Text(row.amount)
    yield Text(row.rate, style="dim")
    left = row.left
    yield Text(f"{clock_time(row.elapsed)}, {'-:--:--' if left is None else clock_time(left)} left", style="dim")


def clock_time(seconds: float) -> str:
    """Return a duration for people.

    Args:
        seconds: Its length.

    Example:
        >>> clock_time(3725.4)
        '1:02:05'
    """
    return str(timedelta(seconds=int(seconds)))


def named_values(values: Mapping[str, float]) -> str:
    """Return values after their names, in one line; those that are not known, or not defined, are left out.

    Args:
        values: Name -> value.

    Example:
        >>> named_values({"loss": 1.40625, "mu_hat": 0.5})
        'loss 1.406  mu_hat 0.500'
    """
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items() if not math.isnan(value))
