"""Tables in four formats, read back."""

import csv
import html
import io
import re
from html.parser import HTMLParser

import pytest

from caopd.commands.report.tables import Column, ReportTable
from caopd.commands.score.bootstrap import Estimate

COLUMNS = [
    Column("run", "Run"),
    Column("n", "n"),
    Column("ece", "ECE ↓", "smallest"),
    Column("spr", "SPR ↑", "largest"),
    Column("ocg", "OCG", "nearest zero"),
    Column("auroc", "AUROC", "largest"),
]
ROWS = [
    {"run": "before", "n": 2000, "ece": 0.01, "spr": 0.99, "ocg": 0.0},
    {"auroc": Estimate(0.5, 0.4, 0.6, 9), "ocg": -0.05, "spr": 0.5, "ece": 0.12341, "n": 2000, "run": "a & b_1"},
    {"brier": 0.5, "run": "<c>|*d*", "n": 24, "ece": 0.12349, "ocg": 0.06, "auroc": Estimate(0.75, None, None, 9)},
]
"""Cells go by their keys: in any order, some not known, some not shown."""
TABLE = ReportTable("t", "A table", "", COLUMNS, ROWS, compared=[1, 2])
BEST = {(1, 2), (2, 2), (1, 4), (2, 5)}
"""ECE is the same in the digits that are shown; one known SPR is no comparison; row 0 is not compared."""
SHOWN = [
    ["before", "2,000", "0.010", "0.990", "0.000", "-"],
    ["a & b_1", "2,000", "0.123", "0.500", "-0.050", "0.500 [0.400, 0.600]"],
    ["<c>|*d*", "24", "0.123", "-", "0.060", "0.750"],
]


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.bold, self.headers = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.tag = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "strong":
            self.bold.add((len(self.rows) - 2, len(self.rows[-1]) - 1))

    def handle_data(self, data):
        if self.rows and data.strip():
            self.rows[-1][-1] += data


def test_html_holds_every_cell_and_the_best_in_bold():
    parser = Cells()
    parser.feed(TABLE.html())
    assert parser.rows == [[column.title for column in COLUMNS], *SHOWN]
    assert parser.bold == BEST


def test_markdown_holds_every_cell_and_the_best_in_bold():
    rows = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in TABLE.markdown().splitlines()[2:]]
    bold = {(i, k) for i, row in enumerate(rows) for k, cell in enumerate(row) if cell.startswith("**")}
    assert bold == BEST
    plain = [[cell.removeprefix("**").removesuffix("**") for cell in row] for row in rows]
    assert [[html.unescape(re.sub(r"\\(.)", r"\1", cell)) for cell in row] for row in plain] == SHOWN


def test_latex_holds_every_cell_and_the_best_in_bold():
    lines = TABLE.latex().split("\\midrule\n")[1].split("\n\\bottomrule")[0].splitlines()
    rows = [re.split(r" (?<!\\)& ", line.removesuffix(r" \\")) for line in lines]
    assert {(i, k) for i, row in enumerate(rows) for k, cell in enumerate(row) if "textbf" in cell} == BEST
    assert rows[1][0] == r"a \& b\_1"
    assert rows[1][5] == "0.500 [0.400, 0.600]"
    assert "\\begin{tabular}{lrrrrr}" in TABLE.latex()
    assert r"ECE $\downarrow$" in TABLE.latex()


def test_csv_holds_all_digits_and_interval_ends():
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert list(rows[0]) == ["run", "n", "ece", "spr", "ocg", "auroc", "auroc_low", "auroc_high"]
    assert [row["run"] for row in rows] == [row["run"] for row in ROWS]
    assert float(rows[1]["ece"]) == 0.12341
    assert (rows[1]["auroc_low"], rows[1]["auroc_high"]) == ("0.4", "0.6")
    assert (rows[0]["auroc"], rows[2]["spr"], rows[2]["auroc_low"]) == ("", "", "")


@pytest.mark.parametrize("compared", [(), (1,)])
def test_a_single_row_is_not_the_best(compared):
    table = ReportTable("t", "A table", "", COLUMNS, ROWS, compared)
    assert "strong" not in table.html()
