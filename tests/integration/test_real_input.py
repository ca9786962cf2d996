"""A real language model on real questions: one round of each task, from the data to calibrated metrics."""

import json

import pytest

from caopd.cli import main
from caopd.rounds.buffer import load_groups
from tests.needs import needs_smollm2

TASKS = {
    "smollm2_science": ("science/physics.train.jsonl", "science/physics.test.jsonl"),
    "smollm2_tool_use": ("tooluse/train.jsonl", "tooluse/test.jsonl"),
}


@needs_smollm2
@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("smollm2_science", "TransformersEngine"),
        pytest.param("smollm2_science", "auto", marks=pytest.mark.slow),
        pytest.param("smollm2_tool_use", "auto", marks=pytest.mark.slow),
    ],
)
def test_one_round(name, engine, request, tmp_path):
    root = request.config.rootpath
    data = root.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the questions are not part of the project: no ../shared/data")
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
