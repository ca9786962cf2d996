"""Shows scores as tables, and writes them as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from caopd.commands.score.bootstrap import Estimate, Scores
from caopd.commands.score.paired import Comparison
from caopd.metrics.catalogue import CATALOGUE
from caopd.metrics.functional.certainty import LEVEL
from caopd.texts import in_terminal

_WIDTH_OF_NAMES, _WIDTH_OF_SCORES = 26, 25


def as_json(overall: Scores, categories: Mapping[str, Scores]) -> dict[str, object]:
    """Return the scores as a JSON object: measures by name and counts, of all completions and of each category."""
    return {**_flat(overall), "categories": {name: _flat(scores) for name, scores in categories.items()}}


def tables(overall: Scores, categories: Mapping[str, Scores], width: int, event: str | None) -> Iterator[Table]:
    """Yield tables with a row for each measure and a column for each category, as many as are needed.

    Args:
        overall: The scores of all completions.
        categories: Category -> its scores.
        width: Number of characters that a line may have.
        event: Which completions these are, which stands beside every measure; None where it is not known.
    """
    columns = list({"overall": overall}.items()) + list(categories.items())
    prefix = "" if event is None else f"{event}/"
    step = max(1, (width - _WIDTH_OF_NAMES - len(prefix)) // _WIDTH_OF_SCORES)
    for start in range(0, len(columns), step):
        table = Table(title=f"value [{LEVEL:.0%} interval]" if start == 0 else None, title_justify="left")
        table.add_column("", no_wrap=True)
        for name, scores in columns[start : start + step]:
            head = in_terminal(name).append(f"\n{scores.n:,} of {scores.n_prompts:,} prompts")
            table.add_column(head, justify="right")
        for measure in overall.estimates:
            cells = [_cell(scores.estimates[measure]) for _, scores in columns[start : start + step]]
            table.add_row(prefix + measure, *cells)
        for row, cell in (("ece if calibrated", _floor), ("p-value of calibration", _p_value)):
            table.add_row(prefix + row, *(cell(scores) for _, scores in columns[start : start + step]))
        yield table


def comparison_as_json(found: Mapping[str, Comparison]) -> dict[str, object]:
    """Return the differences by the name of their measure, as a JSON object."""
    return {"differences": {name: asdict(each) for name, each in found.items()}}


def comparison_table(
    found: Mapping[str, Comparison], files: Sequence[Path], n_prompts: int, event: str | None
) -> Table:
    """Return a table with a row for each measure.

    Args:
        found: Measure -> how it differs.
        files: The first and the second file.
        n_prompts: Number of prompts that both hold.
        event: Which completions these are, which stands beside every measure; None where it is not known.
    """
    prefix = "" if event is None else f"{event}/"
    title = Text(f"second minus first [paired {LEVEL:.0%} interval], {n_prompts:,} prompts")
    for number, file in zip(("first", "second"), files, strict=True):
        title.append(f"\n{number}: ").append(in_terminal(str(file)))
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for head in ("first", "second", "difference"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("second is")
    for name, each in found.items():
        values = ["-" if value is None else f"{value:.3f}" for value in (each.first, each.second)]
        between = "-"
        if each.difference is not None:
            between = escape(f"{each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}]")
        shown = f"|{name}|" if CATALOGUE[name].best == "nearest zero" else name
        table.add_row(prefix + shown, *values, between, each.verdict)
    return table


def _flat(scores: Scores) -> dict[str, object]:
    counts = {"n": scores.n, "n_parsed": scores.n_parsed, "n_prompts": scores.n_prompts}
    certainty = scores.certainty
    floor = {"value": certainty.floor, "low": certainty.floor_low, "high": certainty.floor_high}
    chance = {"noise_floor": floor, "p_value": certainty.p_value} if scores.n_parsed else {}
    return {**counts, "calibrated": chance or None, **{name: asdict(each) for name, each in scores.estimates.items()}}


def _floor(scores: Scores) -> str:
    found = scores.certainty
    return escape(f"{found.floor:.3f} [{found.floor_low:.3f}, {found.floor_high:.3f}]") if scores.n_parsed else "-"


def _p_value(scores: Scores) -> str:
    return f"{scores.certainty.p_value:.3g}" if scores.n_parsed else "-"


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return escape(f"{estimate.value:.3f}{interval}")
