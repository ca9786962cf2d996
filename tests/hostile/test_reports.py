"""``caopd report`` and ``score`` on what others sent: data, whatever it says."""

import csv
import json
import re

import pytest
from markdown_it import MarkdownIt

from caopd.texts import escaped, escaped_lines

from .conftest import DANGEROUS, TEXTS, Page, run_directory

ELEMENTS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "p",
    "div",
    "section",
    "figure",
    "code",
    "ul",
    "li",
}
TABLES = {"table", "thead", "tbody", "tr", "th", "td", "strong", "span", "footer"}
SECTIONS = {"nav", "a", "ul", "li"}
FIELDS = {"form", "label", "input", "select", "option", "button", "script", "noscript", "details", "summary"}
SVG = {"svg", "defs", "g", "path", "use", "clippath", "rect", "pattern", "image", "style"}
ATTRIBUTES = {"onerror", "onload", "src"}


def config_of(text):
    method = {"class_path": text, "init_args": {"backbone": f"stranger.{text}"}}
    return {"model": {"method": method, "source": {"name_or_path": text}}, "data": {"task": {"class_path": text}}}


def test_texts_of_a_config_stay_texts_on_every_page(caopd, here):
    for number, text in enumerate(TEXTS):
        run_directory(here / "runs" / f"run_{number}", config=config_of(text))
    status, output = caopd("report", "runs", "--output=report", f"--title={TEXTS[0]}")
    assert status == 0, output
    page = Page((here / "report" / "report.html").read_text())
    assert page.tags <= ELEMENTS | TABLES | SECTIONS | SVG
    assert not ATTRIBUTES & page.attributes
    rendered = Page(MarkdownIt("commonmark").enable("table").render((here / "report" / "report.md").read_text()))
    assert rendered.tags <= ELEMENTS | TABLES | SECTIONS | {"img"}
    for text in TEXTS:
        assert " ".join(escaped(text).split()) in " ".join(page.text.split())
        assert " ".join(escaped(text).split()) in " ".join(rendered.text.split())
    with (here / "report" / "tables" / "runs.csv").open(newline="") as file:
        models = [row["model"] for row in csv.DictReader(file)]
    assert "'=cmd|' /C calc'!A0" in models
    assert not [model for model in models if model.startswith(("=", "+", "-", "@"))]
    assert "\\input" not in (here / "report" / "tables" / "runs.tex").read_text()


def test_texts_of_completions_stay_texts_in_the_page(caopd, here):
    rows = [
        {"prompt_id": text, "category": text, "question": text, "response": text, "answer": text, "target": text}
        | {"confidence": 0.5, "correct": 1}
        for text in TEXTS
    ]
    run_directory(here / "run", predictions=rows)
    status, output = caopd("report", "run", "--output=report")
    assert status == 0, output
    html = (here / "report" / "report.html").read_text()
    page = Page(html)
    assert page.tags <= ELEMENTS | TABLES | SECTIONS | FIELDS | SVG
    assert not ATTRIBUTES & page.attributes
    assert not DANGEROUS & set(html)
    data, script = re.findall("<script[^>]*>(.*?)</script>", html, flags=re.DOTALL)
    shown = [" ".join(row[3].split()) for row in json.loads(data)["rows"]]
    assert shown[:6] == [" ".join(escaped_lines(text).split()) for text in TEXTS[:6]]
    assert not any(text in script for text in TEXTS)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
CONFIGS = {
    "code": "model: !!python/object/apply:os.mkdir [CODE_HAS_RUN]",
    "bomb": f"{BOMB}data: {{task: *a39}}",
    "itself": "data: &data {task: *data}",
    "depth": f"data: {'[' * 2000}",
    "digits": f"data: {'9' * 5000}",
    "date": "data: 2001-99-99",
    "bytes": "data: \x00",
}
ROLLOUT = json.dumps(
    {
        "example": {"id": "1", "question": "", "target": "A"},
        "prompt_ids": [1],
        "mu_hats": [1.0],
        "rollouts": [
            {
                "rollout": {
                    "token_ids": [1],
                    "text": "A",
                    "stop_reason": "eos",
                    "logprobs": [-1.0],
                    "policy_version": 0,
                },
                "verdict": {"correct": True, "answer": "B", "outcome": "parsed", "feedback": None},
                "reading": {"value": 0.5, "span": None, "outcome": "decimal"},
                "rewards": None,
                "thoughts": [],
            }
        ],
    }
)
METRICS = {
    "depth": "[" * 100_000,
    "not a number": '{"initial": null, "final": {"step": NaN, "greedy": {"n": 1}}}',
    "infinite": '{"initial": null, "final": {"step": 1, "greedy": {"n": 1, "ece": -Infinity}}}',
    "digits": f'{{"initial": null, "final": {{"step": 1{"0" * 400}, "greedy": {{"n": 1}}}}}}',
    "text": '{"initial": null, "final": {"step": "<b>", "greedy": {"n": 1}}}',
    "event": '{"initial": null, "final": {"step": 1, "<b>": {"n": 1}}}',
    "list": "[]",
}
ROLLOUTS = {
    "depth": "[" * 100_000,
    "no rollouts": "{}",
    "text": '"\x1b[2J"',
    "digits": "9" * 5000,
    "value": ROLLOUT.replace("0.5", "7.5"),
    "type of value": ROLLOUT.replace("0.5", '"<b>"'),
    "type of text": ROLLOUT.replace('"A"', "3"),
    "class": '{"example": {"class_path": "stranger.Any"}, "prompt_ids": [], "rollouts": [], "mu_hats": []}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_is_a_bomb_is_an_error(caopd, here, name):
    run_directory(here / "run", config=CONFIGS[name])
    status, output = caopd("report", "run")
    assert (status, output.count("config.yaml") > 0) == (2, True)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_that_are_none_are_an_error(caopd, here, name):
    run_directory(here / "run", metrics=METRICS[name])
    status, output = caopd("report", "run")
    assert (status, "metrics.json" in output) == (2, True)


@pytest.mark.parametrize("name", ROLLOUTS)
def test_rollouts_that_are_none_are_an_error(caopd, here, name):
    run_directory(here / "run", rollouts=ROLLOUTS[name])
    status, output = caopd("report", "run")
    assert (status, "line 2 of " in output, "round_00001.jsonl" in output) == (2, True, True)


@pytest.mark.parametrize("line", ["[" * 100_000, "{}", '{"format": 2}', '{"format": "\x1b[2J"}', "\x00", ""])
def test_a_first_line_of_rollouts_that_is_none_is_an_error(caopd, here, line):
    run_directory(here / "run", rollouts=ROLLOUT)
    file = here / "run" / "rollouts" / "round_00001.jsonl"
    file.write_bytes(line.encode() + b"\n" + file.read_bytes())
    status, output = caopd("report", "run")
    assert (status, "round_00001.jsonl" in output, "\x1b" in output) == (2, True, False)


ROWS = {
    "depth": "[" * 100_000,
    "digits": '{"confidence": 1' + "0" * 5000 + ', "correct": 1}',
    "not a number": '{"confidence": NaN, "correct": 1}',
    "infinite": '{"confidence": Infinity, "correct": 1}',
    "twice": '{"confidence": 0.1, "correct": 0, "correct": 1}',
    "control": json.dumps({"confidence": "\x1b[2J\u202e", "correct": 1}),
    "bytes": "\x00\x1b",
}


def test_a_line_of_rollouts_is_read_otherwise(caopd, here):
    run_directory(here / "run", rollouts=ROLLOUT)
    assert caopd("report", "run")[0] == 0


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_prediction_is_an_error_with_its_line(caopd, here, name):
    (here / "p.jsonl").write_text(f'{{"confidence": 0.5, "correct": 1}}\n{ROWS[name]}\n')
    status, output = caopd("score", "p.jsonl")
    assert (status, "line 2: " in output) == (2, True)


def test_texts_of_predictions_are_scored_and_shown_as_they_are(caopd, here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "6000")
    rows = [
        {"prompt_id": text, "category": text, "response": f"{text}\nConfidence: 0.5", "target": text}
        for text in TEXTS
        for _ in range(2)
    ]
    (here / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = "caopd.verifiers.ExactMatch"
    status, output = caopd("score", "p.jsonl", f"--task={task}", "--resamples=5", "--output=out/metrics.json")
    assert status == 0, output
    assert all(escaped(text) in output for text in TEXTS)
    assert set(json.loads((here / "out" / "metrics.json").read_text())["categories"]) == set(TEXTS)
