"""``caopd report`` with names of any characters, which every file shows as text; and no report is half written."""

import csv
import json
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from caopd.cli import main
from caopd.texts import escaped

NAMES = [
    "$\\input{x}$",
    "caf\udce9 <script>alert(1)</script>",
    "[red] :fire: | \\\\ % & # _ ~ ^ {",
    "_hidden",
    "tab\tand\nline \x1b[31m",
]
FINAL = {
    "accuracy": 0.5,
    "mean_confidence": 0.75,
    "ece": 0.25,
    "brier": 0.3,
    "ocg": 0.25,
    "spr": 0.6,
    "n": 4,
}


@pytest.fixture
def runs(tmp_path):
    """As many runs as names, in a folder whose name is not UTF-8."""
    for number in range(len(NAMES)):
        directory = tmp_path / "runs\udce9" / f"run_{number}"
        directory.mkdir(parents=True)
        (directory / "metrics.json").write_text(json.dumps({"initial": None, "final": {"step": 3, "greedy": FINAL}}))
    return tmp_path / "runs\udce9"


@pytest.fixture
def report(runs, tmp_path):
    output = tmp_path / "report"
    assert main(["report", str(runs), f"--output={output}", "--title=<i>&\udce9 *all* #", "--names", *NAMES]) == 0
    return output


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.headings, self.tags, self._open = [], [], set(), ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self._open = tag
        if tag == "td":
            self.cells.append("")
        if tag in ("h1", "title"):
            self.headings.append("")

    def handle_data(self, data):
        if self._open == "td":
            self.cells[-1] += data
        if self._open in ("h1", "title"):
            self.headings[-1] += data

    def handle_endtag(self, tag):
        self._open = ""


TITLE = r"<i>&\udce9 *all* #"
TAGS = {"html", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "strong", "code", "img"}
TAGS |= {"ul", "li"}


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_pages_show_names_and_title_as_text(report):
    page, markdown = Page(), Page()
    page.feed(read(report / "report.html"))
    markdown.feed(MarkdownIt("commonmark").enable("table").render(read(report / "report.md")))
    assert page.headings == [TITLE, TITLE]
    assert markdown.headings == [TITLE]
    for shown in (page, markdown):
        for name in NAMES:
            assert shown.cells.count(escaped(name)) == 2  # among the runs, and among the metrics
    assert markdown.tags <= TAGS
    assert "script" not in page.tags


def test_figures_show_every_name_and_are_well_formed(report):
    plotted = read(report / "figures" / "confidence-greedy.svg")
    ET.fromstring(plotted)
    comments = [comment.strip() for comment in re.findall("<!-- (.*?) -->", plotted)]  # matplotlib's, of every text
    for name in NAMES:
        shown = escaped(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert comments.count(shown) == 1


def test_tables_hold_every_name(report):
    with (report / "tables" / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [name.replace("\udce9", r"\udce9") for name in NAMES]
    body = read(report / "tables" / "runs.tex").split("\\midrule\n")[1]
    assert [line.split(" & ")[0] for line in body.splitlines()[: len(NAMES)]] == [
        r"\$\textbackslash{}input\{x\}\$",
        r"caf\textbackslash{}udce9 \textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}",
        r"{[}red] :fire: \textbar{} \textbackslash{}\textbackslash{} \% \& \# \_ \textasciitilde{} "
        r"\textasciicircum{} \{",
        r"\_hidden",
        r"tab\textbackslash{}tand\textbackslash{}nline \textbackslash{}x1b{[}31m",
    ]


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_left_of_a_report_that_cannot_be_written(runs, tmp_path, capsys, largest_file, exists):
    output = tmp_path / "new" / "report"
    if exists:
        output.mkdir(parents=True)
        (output / "report.md").write_text("an earlier report")
    largest_file(20_000)  # tables fit, a figure does not
    assert main(["report", str(runs), f"--output={output}"]) == 1
    assert "Expected room for" in capsys.readouterr().err
    assert os.listdir(tmp_path / "new") == (["report"] if exists else [])
    if exists:
        assert os.listdir(output) == ["report.md"]
        assert (output / "report.md").read_text() == "an earlier report"
