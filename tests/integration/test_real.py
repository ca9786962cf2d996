"""The second quickstart, as it is called, with a model of no size in the place of the real one."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_commands_run_in_order_and_are_not_run_again(tmp_path, small_model):
    call = [sys.executable, "benchmarks/real.py", "--directory", str(tmp_path), "--rounds", "5", "--num_test", "20"]
    call += ["--options", "data.round.num_prompts_per_round=4", "data.batch_size=4", "data.task.num_train=64"]
    call += ["data.task.num_validation=20", "data.engine=caopd.rollouts.TransformersEngine"]
    call += ["--sft_options", f"model.source.name_or_path={small_model}", "trainer.max_epochs=4"]
    first = subprocess.run(call, check=True, timeout=600, capture_output=True, text=True).stdout
    assert [line.split()[2] for line in first.splitlines() if line.startswith("$ caopd")] == [
        *("fit", "export", "predict", "fit", "predict")
    ]
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["tasks"]["trained"]["sampled"]["after CaOPD"]["all"]["n"] == 20
    assert (tmp_path / "result.md").read_text().strip() in first
    assert (tmp_path / "result.svg").stat().st_size > 5_000
    second = subprocess.run(call, check=True, timeout=600, capture_output=True, text=True).stdout
    assert "$ caopd" not in second
    assert json.loads((tmp_path / "result.json").read_text())["tasks"] == record["tasks"]
