"""A section of a report that shows figures, or says why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ReportFigures:
    """A section of a report that shows figures.

    Attributes:
        title: Its heading.
        text: How to read the figures.
        figures: Name of the files -> figure; several figures stand side by side.
        missing: What the figures do not show, by the name of a run, and why; without figures it stands in their place.
        wide: Whether the section needs the whole width of a page.
    """

    title: str
    text: str
    figures: Mapping[str, Figure]
    missing: Sequence[tuple[str, str]] = ()
    wide: bool = False

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why something is not shown -> the names of the runs that it is true of."""
        found: dict[str, list[str]] = {}
        for name, why in self.missing:
            found.setdefault(why, []).append(name)
        return found
