"""A run that was interrupted ends bit-identical to one that was not."""

import pytest
import torch

from caopd.buffer import load_groups
from caopd.cli import main

WITHIN = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_train_steps: 1, every_n_epochs: null, save_on_train_epoch_end: false, save_top_k: -1,
                  filename: "step{step}", auto_insert_metric_name: false}
"""
SETTINGS = {
    "trainer.max_epochs": 3,
    "trainer.accumulate_grad_batches": 2,
    # A stateful estimator: its running mean must come back too.
    "data.estimator": "caopd.estimators.Shrinkage",
}


def assert_same_state(expected, found):
    assert expected["state_dict"].keys() == found["state_dict"].keys()
    for name, weight in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], weight), name
    assert found["RolloutDataModule"]["estimator"] == expected["RolloutDataModule"]["estimator"]
    assert found["lr_schedulers"] == expected["lr_schedulers"]
    moments = zip(
        expected["optimizer_states"][0]["state"].values(), found["optimizer_states"][0]["state"].values(), strict=True
    )
    for before, after in moments:
        assert torch.equal(before["exp_avg"], after["exp_avg"])
        assert torch.equal(before["exp_avg_sq"], after["exp_avg_sq"])


@pytest.fixture(scope="module")
def within(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "within.yaml"
    path.write_text(WITHIN)
    return path


@pytest.fixture(scope="module")
def uninterrupted(fit, within, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("uninterrupted"), within, **SETTINGS)


def assert_resumes(step, settings, uninterrupted, fit, within, directory):
    checkpoint = uninterrupted.checkpoint_file(f"step{step}")
    resumed = fit(directory, within, ckpt_path=checkpoint, **settings)
    assert_same_state(uninterrupted.checkpoint("step6"), resumed.checkpoint("step6"))
    left = 6 - step
    assert resumed.scalars("train/loss")[-left:] == uninterrupted.scalars("train/loss")[-2 * left :][-left:]


@pytest.mark.parametrize("step", [2, 3])
def test_resumed_equals_uninterrupted(step, uninterrupted, fit, within, tmp_path):
    """Two steps make a round: step 2 ends a round, step 3 stands in the middle of one."""
    assert_resumes(step, SETTINGS, uninterrupted, fit, within, tmp_path)


@pytest.mark.parametrize("method", ["GRPO", "SFT"])
def test_other_methods_resume_within_a_round_too(method, fit, within, tmp_path):
    """Advantages are made again of the rollouts on disk; a round without rollouts is on disk as well."""
    settings = {**SETTINGS, "model.method": method}
    assert_resumes(3, settings, fit(tmp_path / "whole", within, **settings), fit, within, tmp_path / "resumed")


ESTIMATORS = {
    "LeaveOneOut": {},
    "EmpiricalBayes": {
        "data.round.num_rollouts": 8,
        "data.round.adaptive.num_rollouts_per_batch": 4,
        "data.round.adaptive.max_deviation": 0.15,
    },
}


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_estimates_per_rollout_and_unequal_groups_resume_within_a_round(estimator, fit, within, tmp_path):
    settings = {**SETTINGS, "data.estimator": estimator, **ESTIMATORS[estimator]}
    assert_resumes(3, settings, fit(tmp_path / "whole", within, **settings), fit, within, tmp_path / "resumed")


STAGES = """
data:
  task:
    class_path: caopd.tasks.TaskSequence
    init_args:
      stages:
        - {name: odd, num_rounds: 1, task: {class_path: caopd.tasks.DrawTask,
            init_args: {kinds: [odd], num_train: 24, num_validation: 8, num_test: 8}}}
        - {name: high, num_rounds: 2, task: {class_path: caopd.tasks.DrawTask,
            init_args: {kinds: [high], num_train: 24, num_validation: 8, num_test: 8}}}
"""
NO_SIZES = dict.fromkeys(("data.task.num_train", "data.task.num_validation", "data.task.num_test"))


def test_a_sequence_of_tasks_resumes_in_its_stage(fit, within, tmp_path):
    """With an adaptive budget and an estimator that remembers; 24 rows are less than the two rounds of a stage take."""
    (tmp_path / "stages.yaml").write_text(STAGES)
    config = tmp_path / "stages.yaml"
    settings = {**SETTINGS, **NO_SIZES, **ESTIMATORS["EmpiricalBayes"], "data.estimator": "EmpiricalBayes"}
    settings |= {"trainer.check_val_every_n_epoch": 1, "data.keep_rounds": "null"}
    whole = fit(tmp_path / "whole", within, config, **settings)
    for step in (1, 2, 3):  # within the first stage, between the two, within the second
        resumed = fit(
            tmp_path / f"resumed{step}", within, config, ckpt_path=whole.checkpoint_file(f"step{step}"), **settings
        )
        assert_same_state(whole.checkpoint("step6"), resumed.checkpoint("step6"))
    kinds = [
        {
            group.example.id.split("-")[0]
            for group in load_groups(whole.directory / "rollouts" / f"round_0000{number}.jsonl")
        }
        for number in (1, 2)
    ]
    assert kinds == [{"high"}, {"high"}]


def test_initial_metrics_survive_a_resume(uninterrupted, fit, within, tmp_path):
    resumed = fit(tmp_path, within, ckpt_path=uninterrupted.checkpoint_file("step4"), **SETTINGS)
    assert (resumed.directory / "metrics.json").read_text() == (uninterrupted.directory / "metrics.json").read_text()


def test_lost_rollouts_of_an_interrupted_round_are_an_error(fit, within, tmp_path, capsys):
    run = fit(tmp_path / "run", within, **SETTINGS)
    for file in (run.directory / "rollouts").glob("*.jsonl"):
        file.unlink()
    arguments = ["fit", f"--config={run.directory / 'config.yaml'}", f"--ckpt_path={run.checkpoint_file('step3')}"]
    assert main([*arguments, f"--trainer.default_root_dir={tmp_path / 'resumed'}"]) == 2
    message = capsys.readouterr().err
    assert "rollouts of the interrupted round" in message
    assert "end of a round" in message
