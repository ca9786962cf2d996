"""Tables of a report, each as Markdown, HTML, CSV and LaTeX."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from caopd.commands.score.bootstrap import Estimate
from caopd.metrics.catalogue import Best
from caopd.texts import escaped, in_markdown

Cell = str | int | float | Estimate | None
"""What a cell of a table holds; None where it is undefined or not known."""
Row = Mapping[str, Cell]
"""Key of a column -> cell. Unknown cells may be left out, and a row may hold more than the table shows."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the start of a row these would belong to the command that ends the row before.
    "[": "{[}",
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a text begins that a spreadsheet may take for a formula."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        key: Name of the column in the rows and in the CSV file.
        title: Heading of the column in all other forms.
        best: Which of its values count as the best and are set in bold.
    """

    key: str
    title: str
    best: Best | None = None


@dataclass(frozen=True)
class ReportTable:
    """A table of a report.

    Attributes:
        name: Name of its files, without suffix.
        title: Heading of the table.
        note: A sentence below the table.
        columns: The columns, in their order.
        rows: The rows, each with cells by the keys of the columns.
        compared: Indices of the rows among which the best values are looked for.
    """

    name: str
    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    compared: Sequence[int] = ()

    def markdown(self) -> str:
        """The table in Markdown, best values in bold."""
        lines = ["| " + " | ".join(in_markdown(column.title) for column in self.columns) + " |"]
        lines.append("|" + "".join("---:|" if numeric else "---|" for numeric in self._numeric))
        for number, row in enumerate(self.rows):
            cells = [(_marked(row.get(each.key), in_markdown), self._is_best(number, each)) for each in self.columns]
            lines.append("| " + " | ".join(f"**{text}**" if best else text for text, best in cells) + " |")
        return "\n".join(lines)

    def html(self) -> str:
        """The table in HTML, best values in bold."""
        kinds = [' class="number"' if numeric else "" for numeric in self._numeric]
        heads = "".join(
            f'<th scope="col"{kind}>{html.escape(column.title)}</th>'
            for column, kind in zip(self.columns, kinds, strict=True)
        )
        lines = [f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>"]
        for number, row in enumerate(self.rows):
            cells = []
            for column, kind in zip(self.columns, kinds, strict=True):
                cell = row.get(column.key)
                text = html.escape(shown(cell.value if isinstance(cell, Estimate) else cell))
                text = f"<strong>{text}</strong>" if self._is_best(number, column) else text
                if isinstance(cell, Estimate):
                    text += f'<span class="interval">{shown(cell).removeprefix(shown(cell.value))}</span>'
                cells.append(f"<td{kind}>{text}</td>")
            lines.append(f"<tr>{''.join(cells)}</tr>")
        return "\n".join([*lines, "</tbody>\n</table>"])

    def csv(self) -> str:
        """The table as CSV, with all digits; an interval takes two further columns."""
        intervals = [any(isinstance(cell, Estimate) for cell in cells) for cells in self._cells]
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        names = [
            [column.key, f"{column.key}_low", f"{column.key}_high"] if interval else [column.key]
            for column, interval in zip(self.columns, intervals, strict=True)
        ]
        writer.writerow(chain.from_iterable(names))
        for row in self.rows:
            cells = [row.get(column.key) for column in self.columns]
            values = [_raw(cell, interval) for cell, interval in zip(cells, intervals, strict=True)]
            writer.writerow(chain.from_iterable(values))
        return output.getvalue()

    def latex(self) -> str:
        """The table as a LaTeX ``tabular`` for the package booktabs, best values in bold."""
        lines = ["% \\usepackage{booktabs}", f"\\begin{{tabular}}{{{''.join('lr'[each] for each in self._numeric)}}}"]
        lines += ["\\toprule", " & ".join(_in_latex(column.title) for column in self.columns) + r" \\", "\\midrule"]
        for number, row in enumerate(self.rows):
            cells = [(_marked(row.get(each.key), _in_latex), self._is_best(number, each)) for each in self.columns]
            lines.append(" & ".join(rf"\textbf{{{text}}}" if best else text for text, best in cells) + r" \\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"

    @property
    def _cells(self) -> list[list[Cell]]:
        """Return the cells as text, column by column."""
        return [[row.get(column.key) for row in self.rows] for column in self.columns]

    @property
    def _numeric(self) -> list[bool]:
        return [not any(isinstance(cell, str) for cell in cells) for cells in self._cells]

    def _is_best(self, number: int, column: Column) -> bool:
        """Return whether a cell is the best of its column, as far as the printed digits tell."""
        rule = column.best
        values = {row: _printed(self.rows[row].get(column.key)) for row in self.compared}
        known = [value for value in values.values() if value is not None]
        own = values.get(number)
        if rule is None or own is None or len(known) < 2:
            return False
        if rule == "nearest zero":
            return abs(own) == min(map(abs, known))
        return own == (max(known) if rule == "largest" else min(known))


def shown(cell: Cell) -> str:
    """Return a cell as text: three decimals, an interval in brackets, ``-`` for None, and texts escaped.

    Args:
        cell: What it holds.

    Example:
        >>> shown(0.12345), shown(2000), shown(None), shown(Estimate(0.5, 0.25, 0.75, 10))
        ('0.123', '2,000', '-', '0.500 [0.250, 0.750]')
    """
    if isinstance(cell, Estimate):
        interval = "" if cell.low is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
        return shown(cell.value) + interval
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return escaped(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{round(cell, 9):.3f}"  # 0.3835 rounds alike, whatever its sum


def _printed(cell: Cell) -> float | None:
    value = cell.value if isinstance(cell, Estimate) else cell
    return round(value, 3) if isinstance(value, float) else None


def _raw(cell: Cell, interval: bool) -> list[str | int | float | None]:
    if isinstance(cell, Estimate):
        return [cell.value, cell.low, cell.high]
    cell = _in_csv(cell) if isinstance(cell, str) else cell
    return [cell, None, None] if interval else [cell]


def _in_csv(text: str) -> str:
    """Return a text with an apostrophe before it where a spreadsheet would take it for a formula and compute it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _marked(cell: Cell, markup: Callable[[str], str]) -> str:
    return markup(cell) if isinstance(cell, str) else shown(cell)


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in escaped(text))
