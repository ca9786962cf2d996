"""Shows scores as tables, and writes them as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from caopd.commands.score.bootstrap import LEVEL, Estimate, Scores
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
        yield table


def _flat(scores: Scores) -> dict[str, object]:
    counts = {"n": scores.n, "n_parsed": scores.n_parsed, "n_prompts": scores.n_prompts}
    return {**counts, **{name: asdict(estimate) for name, estimate in scores.estimates.items()}}


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return escape(f"{estimate.value:.3f}{interval}")
