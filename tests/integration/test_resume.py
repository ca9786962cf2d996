"""A run that was interrupted ends bit-identical to one that was not."""

import pytest
import torch

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
