"""What strangers may send: files that try to run code, to write elsewhere, or to be read as markup."""

import json
import os
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from caopd.cli import main

CANARY = "CODE_HAS_RUN"
MODULE = f"import os\n\nos.mkdir({CANARY!r})\n\n\nclass Any:\n    instruction = field_name = ''\n"
TEXTS = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![i](http://x/i.png) **b** `c` | d |",
    "$\\input{/etc/passwd}$ \\write18{id} ^^5c % & # _ ~ {",
    "[red]r[/red] [link=http://x]l[/link] :fire:",
    "\x1b]8;;http://x\x1b\\l\x1b]8;;\x1b\\ \x1b[2J\x9b31m\x07",
    "two\r\nlines\rover \u2028 \u202egnp.exe",
    "=cmd|' /C calc'!A0",
    "half of a pair: \ud83d",
    "\x00\x7f",
    "../../../outside",
    "x" * 5000,
]
"""Texts that something takes for more than a text: HTML, Markdown, LaTeX, rich, terminals, spreadsheets, paths."""
DANGEROUS = {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029, 0x202E)}
"""Characters that no output to a terminal or a page may hold; a line's end is its own."""


class Payload:
    """What a pickle runs when it is loaded."""

    def __reduce__(self):
        return (os.mkdir, (CANARY,))


class Page(HTMLParser):
    """A page as a browser reads it: its elements, their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory: a folder that came from elsewhere, with a module that runs code when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text(MODULE)
    return tmp_path


@pytest.fixture
def caopd(here, capsys):
    """Run a command as its users do, and check what holds of every one, whatever it was given."""

    def run(*arguments):
        status = main(list(map(str, arguments)))
        output = "".join(capsys.readouterr())
        assert not Path(CANARY).exists(), "code has run"
        assert "Traceback" not in output
        assert not DANGEROUS & set(output)
        assert not list(here.parent.glob("outside*"))
        return status, output

    return run


def run_directory(folder, config=None, metrics=None, rollouts=None, predictions=None):
    """Make a run directory that somebody sent, of any contents."""
    folder.mkdir(parents=True, exist_ok=True)
    final = {"accuracy": 0.5, "mean_confidence": 0.7, "ece": 0.2, "brier": 0.3, "spr": 0.6, "n": 4}
    (folder / "metrics.json").write_text(
        json.dumps({"initial": None, "final": {"step": 3, "greedy": final}}) if metrics is None else metrics
    )
    if config is not None:
        (folder / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    if rollouts is not None:
        (folder / "rollouts").mkdir(exist_ok=True)
        lines = rollouts.encode() + b"\n"
        header = {"format": 2, "round": 1, "settings": {}, "num_groups": 1, "sha256": sha256(lines).hexdigest()}
        (folder / "rollouts" / "round_00001.jsonl").write_bytes(json.dumps(header).encode() + b"\n" + lines)
    if predictions is not None:
        (folder / "predictions.greedy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in predictions))
    return folder
