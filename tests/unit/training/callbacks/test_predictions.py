import json

import pytest
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from caopd.cli import main
from caopd.evaluation import EvaluationBatch, Event, EventCompletions, ScoredCompletion
from caopd.rollouts import Sampling
from caopd.training.callbacks import PredictionWriter
from caopd.types import Example

CATEGORIES = ["\ud800", "[red]", "naïve 東京", "two\nlines\u2028"]


def test_any_group_is_written_so_that_it_scores(tmp_path, capsys, group_of):
    examples = [Example(f"p\udce9{number}", "Q", "A", category=category) for number, category in enumerate(CATEGORIES)]
    completions = [
        ScoredCompletion(example, verified)
        for example in examples
        for verified in group_of(example, [("A\nConfidence: 0.50", True)]).rollouts
    ]
    writer = PredictionWriter()
    trainer = Trainer(logger=False, default_root_dir=tmp_path / "[b]", accelerator="cpu")
    writer.on_predict_start(trainer, BoringModel())
    drawn = {name: EventCompletions(Event(name, Sampling()), completions) for name in ("greedy", "sampled")}
    writer.on_predict_batch_end(trainer, BoringModel(), None, EvaluationBatch(drawn), 0)
    writer.on_predict_end(trainer, BoringModel())
    path, other = (tmp_path / "[b]" / "step_000000" / f"predictions.{name}.jsonl" for name in ("greedy", "sampled"))
    assert capsys.readouterr().out == (
        f"predictions: {path}\npredictions: {other}\n"
        f"next:        caopd score '{path}'\n             caopd score '{other}'\n"
    )
    assert {json.loads(line)["event"] for line in other.read_text(encoding="utf-8").split("\n")[:-1]} == {"sampled"}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert {row["event"] for row in rows} == {"greedy"}
    assert [row["category"] for row in rows] == CATEGORIES
    assert [row["prompt_id"] for row in rows] == [example.id for example in examples]
    assert main(["score", str(path), f"--output={tmp_path / 's.json'}"]) == 0
    assert list(json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["categories"]) == CATEGORIES


def test_a_folder_that_cannot_be_made_is_an_error_before_anything_is_sampled(tmp_path):
    (tmp_path / "file").touch()
    writer = PredictionWriter(str(tmp_path / "file" / "p.jsonl"))
    with pytest.raises(OSError, match="file"):
        writer.on_predict_start(Trainer(logger=False, default_root_dir=tmp_path, accelerator="cpu"), BoringModel())
