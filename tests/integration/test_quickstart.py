"""The quickstart shows the paper's effect: SDFT stays blindly confident, CaOPD's confidence becomes true.

A quarter of the job shows what CaOPD does. The whole job twice, at the same time, is slow; `benchmarks/quickstart.py`
shows the same over five seeds.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

METHODS = {"SDFT": ["--model.method=SDFT"], "CaOPD": []}
SHORT = ["--trainer.max_epochs=25", "--data.round.num_prompts_per_round=96", "--data.evaluation.num_examples=500"]


@pytest.fixture(scope="module")
def job(command, request, tmp_path_factory):
    """Run the quickstart as users do and return its metrics."""
    config = request.config.rootpath / "configs" / "quickstart.yaml"

    def run(*arguments):
        directory = tmp_path_factory.mktemp("run")
        result = command("fit", f"--config={config}", f"--trainer.default_root_dir={directory}", *arguments)
        assert result.returncode == 0, result.stderr[-4000:]
        (metrics,) = directory.rglob("metrics.json")
        return json.loads(metrics.read_text())

    return run


def test_a_short_job_already_raises_the_accuracy_and_makes_the_confidence_true(job):
    report = job(*SHORT)
    before, after = report["initial"]["greedy"], report["final"]["greedy"]
    assert before["ocg"] > 0.5
    assert after["accuracy"] > before["accuracy"] + 0.05
    assert abs(after["ocg"]) < 0.12
    assert after["brier"] < 0.5 * before["brier"]
    assert after["auroc"] > 0.65
    assert after["format_adherence"] > 0.95


@pytest.fixture(scope="module")
def reports(job):
    with ThreadPoolExecutor(len(METHODS)) as pool:
        return dict(zip(METHODS, pool.map(lambda method: job(*METHODS[method]), METHODS), strict=True))


@pytest.mark.slow
def test_both_start_from_the_same_overconfident_base(reports):
    base = reports["SDFT"]["initial"]["greedy"]
    assert reports["CaOPD"]["initial"]["greedy"] == base
    assert base["mean_confidence"] > 0.98
    assert base["ocg"] > 0.5


@pytest.mark.slow
def test_distillation_raises_accuracy_and_stays_overconfident(reports):
    before, after = (reports["SDFT"][moment]["greedy"] for moment in ("initial", "final"))
    assert after["accuracy"] >= before["accuracy"] + 0.20
    assert after["ocg"] > 0.25


@pytest.mark.slow
def test_calibration_keeps_the_accuracy_and_makes_the_confidence_true(reports):
    for event in ("greedy", "sampled"):
        sdft, caopd = (reports[method]["final"][event] for method in ("SDFT", "CaOPD"))
        assert caopd["accuracy"] > sdft["accuracy"] - 0.04
        assert abs(caopd["ocg"]) < 0.12
        assert caopd["ece"] < 0.5 * sdft["ece"]
        assert caopd["brier"] < 0.75 * sdft["brier"]
        assert caopd["auroc"] > 0.65
        assert caopd["format_adherence"] > 0.95
