"""The page that says how to add a metric, followed step by step."""

import csv
import doctest
import json
import re
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
import torch

import caopd.metrics
from caopd.cli import main
from caopd.metrics import catalogue, functional

PAGE = (Path(__file__).parents[2] / "docs" / "add_a_metric.md").read_text(encoding="utf-8")
FUNCTION, ENTRY, CLASS, OWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(CONFIG,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
NAME = "certain_error_rate"


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """The files that the page names, where Python finds them as it would find them in the package."""
    for package, code in ((functional, FUNCTION), (caopd.metrics, CLASS)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "certain.py").write_text(code)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.certain", raising=False)
    spec = eval(f"({textwrap.dedent(ENTRY)})", vars(catalogue))[0]
    monkeypatch.setitem(catalogue.CATALOGUE, spec.name, spec)
    (tmp_path / "my_metric.py").write_text(FUNCTION + OWN)
    (tmp_path / "my_metric.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_metric_is_logged_scored_and_reported(fit, followed, capsys):
    run = fit(followed / "run", followed / "my_metric.yaml", **{"trainer.max_epochs": 1})
    final = json.loads((run.directory / "metrics.json").read_text())["final"]["sampled"]
    logged = run.scalars(f"val/sampled/{NAME}")
    assert logged[-1] == pytest.approx(final[NAME], nan_ok=True)
    assert logged[0] > 0
    assert run.scalars("val/sampled/certain_errors") == pytest.approx(logged[1:], nan_ok=True)
    assert NAME in capsys.readouterr().out

    lines = [
        {"prompt_id": n, "confidence": q, "correct": n % 2} for n, q in enumerate([0.9, 1.0, 0.95, 0.3, 0.5, None])
    ]
    predictions = run.directory / "predictions.sampled.jsonl"
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["score", str(predictions), f"--output={followed}/scores.json"]) == 0
    scored = json.loads((followed / "scores.json").read_text())[NAME]
    assert scored["value"] == pytest.approx(2 / 3)
    assert 0 <= scored["low"] < scored["value"] < scored["high"] <= 1
    assert NAME in capsys.readouterr().out

    assert main(["report", str(run.directory), f"--output={followed}/report"]) == 0
    assert "Certain errors ↓" in (followed / "report" / "report.md").read_text()
    tables = followed / "report" / "tables"
    measured, predicted = (
        list(csv.DictReader((tables / name).open())) for name in ("metrics_sampled.csv", "predictions_sampled.csv")
    )
    assert measured[-1][NAME] == ("" if final[NAME] is None else str(final[NAME]))
    assert float(predicted[0][NAME]) == scored["value"]


def test_the_class_stands_alone_and_the_examples_of_the_page_are_right(followed):
    for name in ("caopd.metrics.functional.certain", "caopd.metrics.certain"):
        result = doctest.testmod(import_module(name))
        assert result.attempted > 0
        assert result.failed == 0
    metric = import_module("caopd.metrics.certain").CertainErrorRate()
    assert metric.higher_is_better is False
    metric.update(torch.tensor([0.9, 0.95, 0.2]), torch.tensor([1, 0, 0]))
    assert float(metric.compute()) == 0.5
