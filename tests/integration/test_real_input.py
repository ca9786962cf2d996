"""A real language model on real questions: one round of each task, from the data to calibrated metrics."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from caopd.cli import main
from caopd.rounds.buffer import load_groups
from tests.needs import needs_smollm2

TASKS = {
    "smollm2_science": ("science/physics.train.jsonl", "science/physics.test.jsonl"),
    "smollm2_tool_use": ("tooluse/train.jsonl", "tooluse/test.jsonl"),
}


@pytest.fixture
def data(request) -> Path:
    """The folder of real questions, beside the project."""
    found = request.config.rootpath.parent / "shared" / "data"
    if not found.is_dir():
        pytest.skip("the questions are not part of the project: no ../shared/data")
    return found


@needs_smollm2
@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("smollm2_science", "TransformersEngine"),
        pytest.param("smollm2_science", "auto", marks=pytest.mark.slow),
        pytest.param("smollm2_tool_use", "auto", marks=pytest.mark.slow),
    ],
)
def test_one_round(name, engine, data, request, tmp_path):
    root = request.config.rootpath
    train, test = (str(data / file) for file in TASKS[name])
    files = {"train": train, "validation": test, "test": test}
    settings = {
        "trainer.max_epochs": 1,
        "data.batch_size": 2,
        "data.engine": engine,
        "trainer.accumulate_grad_batches": 1,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_checkpointing": "false",
        "trainer.callbacks": "null",
        "trainer.default_root_dir": tmp_path,
        "data.task.init_args.source.files": json.dumps(files),
        "data.round.num_prompts_per_round": 2,
        "data.round.num_rollouts": 2,
        "data.round.num_trained_rollouts": 1,
        "data.sampling.max_new_tokens": 24,
        "data.evaluation.num_examples": 2,
        "data.evaluation.max_new_tokens": 24,
    }
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    assert main(["fit", f"--config={root / 'configs' / f'{name}.yaml'}", *arguments]) == 0
    (metrics,) = tmp_path.rglob("metrics.json")
    report = json.loads(metrics.read_text())
    assert report["final"]["step"] == 1
    assert {report[moment][event]["n"] for moment in ("initial", "final") for event in ("greedy", "sampled")} == {2}
    (rollouts,) = tmp_path.rglob("round_00000.jsonl")
    groups = load_groups(rollouts)
    assert len(groups) == 2
    texts = {verified.rollout.text for group in groups for verified in group.rollouts}
    assert len(texts) >= 3  # two samples of each prompt; short ones may be equal
    assert max(len(text.split()) for text in texts) > 3


@pytest.mark.slow
def test_the_benchmark_measures_both_tasks_before_and_after(data, tmp_path, small_model):
    call = [sys.executable, "benchmarks/real_input.py", "--data", str(data), "--directory", str(tmp_path / "runs")]
    call += ["--output", str(tmp_path / "found.json"), "--sft_options", f"model.source.name_or_path={small_model}"]
    call += ["--options", "trainer.max_epochs=2", "data.round.num_prompts_per_round=4", "data.batch_size=4"]
    call += ["trainer.accumulate_grad_batches=1", "data.engine=caopd.rollouts.TransformersEngine"]
    call += ["data.sampling.max_new_tokens=8", "data.evaluation.max_new_tokens=8"]
    subprocess.run(call, check=True, timeout=900)
    record = json.loads((tmp_path / "found.json").read_text())
    held_out = {"science": 434, "tool_use": 68}
    assert record["tasks"].keys() == held_out.keys()
    for name, task in record["tasks"].items():
        for event in ("greedy", "sampled"):
            assert [each["all"]["n"] for each in task["measures"][event].values()] == [held_out[name]] * 2
    assert len(record["tasks"]["science"]["measures"]["sampled"]["after CaOPD"]["all"]["categories"]) == 4
    assert "## tool_use, by category, sampled" in (tmp_path / "found_tables.md").read_text()
