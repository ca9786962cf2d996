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


SUBJECTS = ("physics", "chemistry", "biology", "material")
OPTIONS = "A: one\nB: two\nC: three\nD: four\nPlease reason step by step."


@pytest.fixture
def made_up(tmp_path) -> Path:
    """A folder of made-up questions in the form of the real ones, which every tokenizer can write."""
    folder = tmp_path / "data" / "science"
    folder.mkdir(parents=True)
    for subject in SUBJECTS:
        for split, number in {"train": 8, "test": 5}.items():
            rows = [
                {"idx": n, "prompt": f"What is {split} {n} of {subject}?\n\n{OPTIONS}", "answer": "ABCD"[n % 4]}
                for n in range(number)
            ]
            (folder / f"{subject}.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parent


@pytest.mark.slow
def test_the_benchmark_measures_all_held_out_rows_before_and_after(made_up, tmp_path, small_model):
    call = [sys.executable, "benchmarks/real_input.py", "--data", str(made_up), "--directory", str(tmp_path / "runs")]
    call += ["--tasks", "science", "--output", str(tmp_path / "found.json")]
    call += ["--options", "trainer.max_epochs=14", "trainer.accumulate_grad_batches=1"]
    call += ["data.round.num_prompts_per_round=4", "data.batch_size=4", "data.sampling.max_new_tokens=8"]
    call += ["data.engine=caopd.rollouts.TransformersEngine"]
    call += ["--sft_options", f"model.source.name_or_path={small_model}"]
    subprocess.run(call, check=True, timeout=900)
    measures = json.loads((tmp_path / "found.json").read_text())["tasks"]["science"]["measures"]
    for event in ("greedy", "sampled"):
        assert {name: each["all"]["n"] for name, each in measures[event].items()} == {
            "after SFT": 20,
            "after CaOPD": 20,
        }
        assert measures[event]["after CaOPD"]["all"]["categories"].keys() == set(SUBJECTS)
        assert "against" in measures[event]["after CaOPD"]
    page = (tmp_path / "found_tables.md").read_text()
    assert "## science, by category, sampled" in page
    written = {path: path.stat().st_mtime for path in (tmp_path / "runs").glob("*.json")}
    subprocess.run(call, check=True, timeout=300)
    assert {path: path.stat().st_mtime for path in (tmp_path / "runs").glob("*.json")} == written, (
        "nothing is run again"
    )
