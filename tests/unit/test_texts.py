"""Texts show as they are in every format: read back by parsers that know nothing of how they were escaped."""

import io
import json
import sys
from html.parser import HTMLParser

import markdown
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from caopd.cli import main
from caopd.texts import escaped, escaped_lines, in_markdown, in_terminal, unique

TEXTS = [
    "plain, with spaces",
    "Größe 東京 👍",
    "a_b_c *d* **e** `f` ~~g~~",
    "<b>h</b> &amp; [i](j) ![k](l) #",
    "$x$ and $$y$$, $5",
    r"back\slash \_ \\",
    "| cell | cell |",
    "[red]m[/red] :fire: {n}",
]
NOT_SHOWN = {
    "Andr\udce9": r"Andr\udce9",
    "\ud83d alone": r"\ud83d alone",
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "two\nlines\r\n": r"two\nlines\r\n",
    "\x00\x7f\x85\u2028": r"\x00\x7f\x85\u2028",
    "user\u202egnp.exe": r"user\u202egnp.exe",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_can_be_shown_stays(text):
    assert escaped(text) == text


@pytest.mark.parametrize("text", NOT_SHOWN)
def test_what_cannot_be_shown_is_escaped(text):
    assert escaped(text) == NOT_SHOWN[text]


def test_a_message_keeps_its_lines_alone():
    assert escaped_lines("one\n\ttwo\r\x1b[2J\u2028") == "one\n\\ttwo\\r\\x1b[2J\\u2028"


def test_a_key_that_stands_twice_is_no_object():
    assert json.loads('{"a": 1, "b": {"a": 2}}', object_pairs_hook=unique) == {"a": 1, "b": {"a": 2}}
    with pytest.raises(ValueError, match="the key 'b' stands twice"):
        json.loads('{"a": {"b": 1, "c": 2, "b": 3}}', object_pairs_hook=unique)


class Shown(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self):
        super().__init__()
        self.text, self.tags = "", set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


COMMONMARK = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TENSORBOARD = ["tables", "fenced_code"]


@pytest.mark.parametrize("render", [COMMONMARK.render, lambda text: markdown.markdown(text, extensions=TENSORBOARD)])
@pytest.mark.parametrize("text", [*TEXTS, *NOT_SHOWN])
def test_markdown_shows_the_text_in_a_heading_and_in_a_cell(render, text):
    page = Shown()
    page.feed(render(f"# {in_markdown(text)}\n\n| one | two |\n|---|---|\n| {in_markdown(text)} | end |\n"))
    assert page.text.split() == [*escaped(text).split(), "one", "two", *escaped(text).split(), "end"]
    assert page.tags == {"h1", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("text", [*TEXTS, *NOT_SHOWN])
def test_a_terminal_shows_the_text(text):
    output = io.StringIO()
    Console(file=output).print(in_terminal(text), soft_wrap=True)
    assert output.getvalue() == escaped(text) + "\n"


def test_the_command_writes_to_a_terminal_that_knows_ascii_alone(tmp_path, monkeypatch):
    rows = [{"confidence": 0.5, "correct": 1, "category": category} for category in ("naïve", "\ud800")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = io.BytesIO()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["score", str(tmp_path / "p.jsonl")]) == 0
    sys.stdout.flush()
    shown = written.getvalue().decode("ascii")
    assert r"na\xefve" in shown
    assert r"\ud800" in shown
    assert "| accuracy" in shown
