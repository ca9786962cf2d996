"""Rows of a data set that hold more than text, through a whole run with every default on."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorboard.plugins.text.text_plugin as rendering
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.texts import escaped
from caopd.types import GREEDY, SAMPLED

from .conftest import TEXTS, Page

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
SIZES = [
    "--data.round.num_prompts_per_round=8",
    "--data.round.num_rollouts=2",
    "--data.batch_size=4",
    "--data.sampling.max_new_tokens=8",
    "--trainer.max_epochs=1",
    "--trainer.default_root_dir=runs",
]
TASK = """
data:
  task:
    class_path: caopd.tasks.ScienceQA
    init_args:
      source: {path: null, files: {train: rows.jsonl}, splits: {validation: train, test: train}}
"""
SHORT = [text for text in TEXTS if len(text) < 100 and "\ud83d" not in text]


def row(text):
    return {
        "prompt": f"{text}\nA: {text}\nB: b",
        "answer": "A",
        "id": text,
        "domain": text,
        "demonstration": f"{text}\n<answer>A</answer>",
        "system": text,
        text: text,
    }


@pytest.fixture
def with_rows(caopd, here):
    def run(command, lines, *options):
        (here / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
        (here / "task.yaml").write_text(TASK)
        return caopd(command, f"--config={CONFIG}", "--config=task.yaml", *SIZES, *options)

    return run


def test_texts_of_rows_stay_texts_in_everything_that_a_run_writes(with_rows, caopd, here):
    lines = [json.dumps(row(text)) for text in SHORT]
    status, output = with_rows("fit", lines, "--data.round.num_prompts_per_round=4")
    assert status == 0, output
    (run,) = (here / "runs" / "lightning_logs").iterdir()
    events = EventAccumulator(str(run))
    events.Reload()
    (tag,) = [tag for tag in events.Tags()["tensors"] if "completions" in tag]
    shown = np.array(events.Tensors(tag)[0].tensor_proto.string_val[0])
    page = Page(rendering.text_array_to_html(shown, enable_markdown=True))
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "br", "p"}
    assert escaped(SHORT[0]) in page.text
    status, output = with_rows("predict", lines, "--predictions.output=p.jsonl")
    assert status == 0, output
    files = [f"p.{event}.jsonl" for event in (GREEDY, SAMPLED)]
    for file in files:
        predicted = [json.loads(line) for line in (here / file).read_text().split("\n") if line]
        assert {each["category"] for each in predicted} == {text.lower() for text in SHORT}
    assert caopd("report", run)[0] == 0
    assert {path.relative_to(here).parts[0] for path in here.rglob("*")} <= {
        *("runs", "rows.jsonl", "task.yaml", *files, "report", "stranger.py")
    }
    assert torch.load(next(run.rglob("*.ckpt")), weights_only=True)


BAD = {
    "depth": "[" * 100_000,
    "digits": f'{{"prompt": {"9" * 5000}, "answer": "A"}}',
    "no text": '{"prompt": NaN, "answer": "A"}',
    "twice": '{"prompt": "a\\nA: b", "answer": "A", "answer": "B"}',
    "half of a pair": json.dumps({"prompt": "\ud83d\nA: b", "answer": "A"}),
    "half of a pair in a name": json.dumps({"prompt": "a\nA: b", "answer": "A", "\udce9": 1}),
    "control": json.dumps({"prompt": "a", "answer": "\x1b[2J\u202e", "\x1b]8;;x\x1b\\": 1}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_an_error_with_its_line(with_rows, name):
    status, output = with_rows("fit", [json.dumps(row("a")), BAD[name]])
    assert (status, "rows.jsonl, line 2" in output) == (2, True), output


@pytest.mark.parametrize("name", ["half of a pair: \udce9", "\x1b[2J", "two\nlines"])
def test_names_of_runs_are_shown_escaped(with_rows, name):
    logger = json.dumps({"class_path": "TensorBoardLogger", "init_args": {"save_dir": "runs", "name": name}})
    status, output = with_rows("fit", [json.dumps(row(text)) for text in SHORT], f"--trainer.logger={logger}")
    assert status in (0, 2), output


@pytest.mark.parametrize("name", ["../outside", "/outside", "a\x00b", "\udce9", "a b/c", "n" * 300])
def test_names_of_tasks_are_names(with_rows, name):
    task = json.dumps({name: {"class_path": "caopd.tasks.DrawTask"}})
    status, output = with_rows("test", [json.dumps(row("a"))], f"--data.evaluation.tasks={task}")
    assert (status, "Expected" in output) == (2, True), output
