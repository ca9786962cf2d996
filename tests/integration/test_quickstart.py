"""The quickstart shows the paper's effect: SDFT stays blindly confident, CaOPD's confidence becomes true.

The whole job twice, at the same time; `benchmarks/quickstart.py` shows the same over five seeds.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

METHODS = {"SDFT": ["--model.method=SDFT"], "CaOPD": []}


@pytest.fixture(scope="module")
def reports(command, request, tmp_path_factory):
    config = request.config.rootpath / "configs" / "quickstart.yaml"

    def run(method):
        directory = tmp_path_factory.mktemp(method)
        arguments = [f"--trainer.default_root_dir={directory}", "--trainer.enable_progress_bar=false"]
        result = command("fit", f"--config={config}", *arguments, *METHODS[method])
        assert result.returncode == 0, result.stderr[-4000:]
        (metrics,) = directory.rglob("metrics.json")
        return json.loads(metrics.read_text())

    with ThreadPoolExecutor(len(METHODS)) as pool:
        return dict(zip(METHODS, pool.map(run, METHODS), strict=True))


def test_both_start_from_the_same_overconfident_base(reports):
    base = reports["SDFT"]["initial"]
    assert reports["CaOPD"]["initial"] == base
    assert base["mean_confidence"] > 0.98
    assert base["ocg"] > 0.5


def test_distillation_raises_accuracy_and_stays_overconfident(reports):
    sdft = reports["SDFT"]
    assert sdft["final"]["accuracy"] >= sdft["initial"]["accuracy"] + 0.20
    assert sdft["final"]["ocg"] > 0.25


def test_calibration_keeps_the_accuracy_and_makes_the_confidence_true(reports):
    sdft, caopd = reports["SDFT"]["final"], reports["CaOPD"]["final"]
    assert caopd["accuracy"] > sdft["accuracy"] - 0.04
    assert abs(caopd["ocg"]) < 0.12
    assert caopd["ece"] < 0.5 * sdft["ece"]
    assert caopd["brier"] < 0.75 * sdft["brier"]
    assert caopd["auroc"] > 0.65
    assert caopd["format_adherence"] > 0.95
