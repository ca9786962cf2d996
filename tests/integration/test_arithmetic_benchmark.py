"""The benchmark of generated sums, as it is called, with a model of no size in the place of the real one."""

import json
import shutil
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_whole_call_writes_record_page_and_figure(tmp_path, small_model):
    small = [
        "trainer.max_epochs=4",
        "data.round.num_prompts_per_round=4",
        "data.batch_size=4",
        "data.task.num_train=64",
    ]
    call = [sys.executable, "benchmarks/arithmetic.py", "--seeds", "11", "--methods", "SDFT", "CaOPD on SDFT"]
    call += ["--num_test", "20", "--num_transfer", "20", "--directory", str(tmp_path / "runs")]
    call += ["--options", *small, "data.task.num_validation=20", "data.engine=caopd.rollouts.TransformersEngine"]
    call += ["--sft_options", f"model.source.name_or_path={small_model}", "data.evaluation.num_examples=20"]
    call += ["--output", str(tmp_path / "found.json"), "--figure", str(tmp_path / "figure.svg")]
    call += ["--tables", str(tmp_path / "tables")]
    subprocess.run(call, check=True, timeout=900)
    record = json.loads((tmp_path / "found.json").read_text())
    assert list(record["tasks"]) == ["trained", "more_digits", "operators"]
    assert record["tasks"]["trained"]["sampled"]["CaOPD on SDFT"]["seeds"]["11"]["n"] == 20
    assert "## Every seed" in (tmp_path / "found.md").read_text()
    assert (tmp_path / "figure.svg").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "found.json").unlink()
    subprocess.run(call, check=True, timeout=600)  # of the tables alone
    assert json.loads((tmp_path / "found.json").read_text()) == record
