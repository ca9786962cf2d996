"""A run that was interrupted ends bit-identical to one that was not."""

import json
import shutil

import pytest
import torch

from caopd.cli import main
from caopd.rounds.buffer import load_groups

from .conftest import EVERY_ROUND, QUICKSTART, Run, fit_arguments, options

SETTINGS = {
    "trainer.max_epochs": 3,
    "trainer.accumulate_grad_batches": 2,
    # A stateful estimator: its running mean must come back too.
    "data.estimator": "caopd.methods.estimators.Shrinkage",
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
def uninterrupted(fit, every_step, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("uninterrupted"), every_step, **SETTINGS)


def assert_resumes(step, settings, uninterrupted, fit, every_step, directory):
    checkpoint = uninterrupted.checkpoint_file(f"step{step}")
    resumed = fit(directory, every_step, ckpt_path=checkpoint, **settings)
    assert_same_state(uninterrupted.checkpoint("step6"), resumed.checkpoint("step6"))
    left = 6 - step
    assert resumed.scalars("train/loss")[-left:] == uninterrupted.scalars("train/loss")[-2 * left :][-left:]


@pytest.mark.parametrize("step", [2, 3])
def test_resumed_equals_uninterrupted(step, uninterrupted, fit, every_step, tmp_path):
    """Two steps make a round: step 2 ends a round, step 3 stands in the middle of one."""
    assert_resumes(step, SETTINGS, uninterrupted, fit, every_step, tmp_path)


@pytest.mark.parametrize("method", ["GRPO", "SFT"])
def test_other_methods_resume_within_a_round_too(method, fit, every_step, tmp_path):
    """Advantages are made again of the rollouts on disk; a round without rollouts is on disk as well."""
    settings = {**SETTINGS, "model.method": method}
    assert_resumes(3, settings, fit(tmp_path / "whole", every_step, **settings), fit, every_step, tmp_path / "resumed")


ESTIMATORS = {
    "LeaveOneOut": {},
    "EmpiricalBayes": {
        "data.round.num_rollouts": 8,
        "data.round.adaptive.num_rollouts_per_batch": 4,
        "data.round.adaptive.max_deviation": 0.15,
    },
}


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_estimates_per_rollout_and_unequal_groups_resume_within_a_round(estimator, fit, every_step, tmp_path):
    settings = {**SETTINGS, "data.estimator": estimator, **ESTIMATORS[estimator]}
    assert_resumes(3, settings, fit(tmp_path / "whole", every_step, **settings), fit, every_step, tmp_path / "resumed")


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


@pytest.mark.slow
def test_a_sequence_of_tasks_resumes_in_its_stage(fit, every_step, tmp_path):
    """With an adaptive budget and an estimator that remembers; 24 rows are less than the two rounds of a stage take."""
    (tmp_path / "stages.yaml").write_text(STAGES)
    config = tmp_path / "stages.yaml"
    settings = {**SETTINGS, **NO_SIZES, **ESTIMATORS["EmpiricalBayes"], "data.estimator": "EmpiricalBayes"}
    settings |= {"trainer.check_val_every_n_epoch": 1, "data.keep_rounds": "null"}
    whole = fit(tmp_path / "whole", every_step, config, **settings)
    for step in (1, 2, 3):  # within the first stage, between the two, within the second
        resumed = fit(
            tmp_path / f"resumed{step}", every_step, config, ckpt_path=whole.checkpoint_file(f"step{step}"), **settings
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


EVERY_VALIDATION = {**SETTINGS, "trainer.check_val_every_n_epoch": 1, "data.keep_rounds": "null"}
OF_ROUNDS_END = (
    "val/greedy/brier",
    "val/sampled/brier",
    "val/sampled/ece",
    "rollout/mu_hat",
    "train/kl_confidence",
    "train/loss",
)


def logged(run, after):
    """What was logged behind a step: tag -> (step, value)."""
    tags = [tag for tag in run.events.Tags()["scalars"] if tag in OF_ROUNDS_END]
    return {tag: [(e.step, e.value) for e in run.events.Scalars(tag) if e.step >= after] for tag in tags}


@pytest.fixture(scope="module")
def validated(fit, every_step, tmp_path_factory):
    """Round 0 has steps 0 and 1, its validation is logged at step 1, and so on."""
    return fit(tmp_path_factory.mktemp("validated"), every_step, **EVERY_VALIDATION)


@pytest.mark.parametrize("step", [1, 2, 4, 6])
def test_a_resume_logs_and_validates_what_the_uninterrupted_run_did(step, validated, fit, every_step, tmp_path):
    """Steps 2, 4 and 6 end a round: their checkpoints come before its validation and before all that ends a round."""
    resumed = fit(tmp_path, every_step, ckpt_path=validated.checkpoint_file(f"step{step}"), **EVERY_VALIDATION)
    expected, found = logged(validated, after=(step - 1) // 2 * 2 + 1), logged(resumed, after=0)
    assert expected.pop("train/loss")[step % 2 == 0 :] == found.pop("train/loss", [])
    assert found == expected
    assert found.keys() == set(OF_ROUNDS_END) - {"train/loss"}
    if step < 6:
        assert_same_state(validated.checkpoint("step6"), resumed.checkpoint("step6"))


@pytest.mark.slow
def test_a_resumed_run_can_be_resumed(validated, fit, every_step, tmp_path):
    """The second run ends the first one's round, and its own checkpoints must know where that round's rollouts are."""
    first = validated.checkpoint_file("step4")
    at_ends = tmp_path / "at_ends.yaml"
    at_ends.write_text(EVERY_ROUND.replace("save_on_train_epoch_end: true", "save_on_train_epoch_end: false"))
    second = fit(tmp_path / "second", at_ends, ckpt_path=first, **EVERY_VALIDATION)
    third = fit(tmp_path / "third", every_step, ckpt_path=second.checkpoint_file("round1"), **EVERY_VALIDATION)
    assert_same_state(validated.checkpoint("step6"), third.checkpoint("step6"))
    assert logged(third, 0) == {
        tag: [pair for pair in pairs if pair[0] >= (3 if tag.startswith(("rollout", "train/kl")) else 4)]
        for tag, pairs in logged(validated, 3).items()
    }


TWICE_A_ROUND = {**EVERY_VALIDATION, "trainer.val_check_interval": 0.5}


@pytest.mark.slow
def test_validations_within_a_round_are_not_left_out_either(fit, every_step, tmp_path):
    whole = fit(tmp_path / "whole", every_step, **TWICE_A_ROUND)
    assert [at for at, _ in logged(whole, 0)["val/greedy/brier"]] == [0, 0, 1, 2, 3, 4, 5]
    for step in (1, 2, 3):
        checkpoint = whole.checkpoint_file(f"step{step}")
        resumed = fit(tmp_path / f"resumed{step}", every_step, ckpt_path=checkpoint, **TWICE_A_ROUND)
        assert logged(resumed, 0)["val/greedy/brier"] == logged(whole, 0)["val/greedy/brier"][step:], step
        assert_same_state(whole.checkpoint("step6"), resumed.checkpoint("step6"))


@pytest.mark.slow
def test_a_run_that_is_counted_in_steps_resumes_at_a_rounds_end(validated, fit, every_step, tmp_path):
    settings = {**EVERY_VALIDATION, "trainer.max_steps": 6, "trainer.max_epochs": -1}
    whole = fit(tmp_path / "whole", every_step, **settings)
    for name in ("step2", "step3"):
        resumed = fit(tmp_path / name, every_step, ckpt_path=whole.checkpoint_file(name), **settings)
        assert_same_state(whole.checkpoint("step6"), resumed.checkpoint("step6"))


@pytest.mark.parametrize("last", [pytest.param(5, marks=pytest.mark.slow), 6])
def test_a_last_step_within_a_round_or_at_its_end_is_followed_by_all_that_ends_the_round(
    last, validated, fit, every_step, tmp_path
):
    """Lightning ends a run that has had its last step before it looks at the validation and the end of the round."""
    settings = {**EVERY_VALIDATION, "trainer.max_steps": last, "trainer.max_epochs": -1}
    whole = fit(tmp_path / "whole", every_step, **settings)
    resumed = fit(tmp_path / "resumed", every_step, ckpt_path=whole.checkpoint_file(f"step{last}"), **settings)
    expected = logged(whole, last - 1)
    del expected["train/loss"]
    assert logged(resumed, 0) == expected
    assert (resumed.directory / "metrics.json").read_text() == (whole.directory / "metrics.json").read_text()


STOPPING = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.EarlyStopping
      init_args: {monitor: val/greedy/n, patience: 1}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_epochs: 1, save_on_train_epoch_end: true, save_top_k: -1, filename: "round{epoch}",
                  auto_insert_metric_name: false}
"""


def test_a_run_that_was_stopped_early_is_not_trained_on(fit, tmp_path):
    """The number of prompts never gets smaller, so training is to stop after two rounds: the checkpoint says so."""
    (tmp_path / "stopping.yaml").write_text(STOPPING)
    whole = fit(tmp_path / "whole", tmp_path / "stopping.yaml", **EVERY_VALIDATION)
    assert not whole.checkpoint_file("round2").exists()
    resumed = fit(
        tmp_path / "resumed", tmp_path / "stopping.yaml", ckpt_path=whole.checkpoint_file("round1"), **EVERY_VALIDATION
    )
    assert not (resumed.directory / "checkpoints").exists()
    assert (resumed.directory / "metrics.json").read_text() == (whole.directory / "metrics.json").read_text()


MEASURED = ("rollout/parity_mean", "rollout/parity_max", "rollout/teacher_accuracy", "rollout/optimism_bias")


def test_what_was_measured_while_rollouts_were_sampled_is_logged_after_a_resume_too(fit, every_step, tmp_path):
    settings = {**SETTINGS, "trainer.max_epochs": 1, "data.teacher_probe.every_num_rounds": 1}
    whole = fit(tmp_path / "whole", every_step, **settings)
    resumed = fit(tmp_path / "resumed", every_step, ckpt_path=whole.checkpoint_file("step1"), **settings)
    assert [resumed.scalars(tag) for tag in MEASURED] == [whole.scalars(tag) for tag in MEASURED]


INTERRUPTING = """
import os
import signal
from lightning import Callback

class Interrupting(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == {index}:
            {action}
"""
ON_EXCEPTION = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_epochs: 1, save_on_train_epoch_end: true, save_on_exception: true, save_top_k: -1,
                  filename: "at{step}", auto_insert_metric_name: false}
"""


@pytest.mark.parametrize("index", [1, 2, 3])
def test_an_interrupted_run_goes_on_behind_its_last_whole_step(index, validated, fit, tmp_path, monkeypatch):
    """Two micro-batches are a step: in the second (index 1) and in the fourth, one of them is lost and comes again."""
    (tmp_path / f"raising{index}.py").write_text(INTERRUPTING.format(index=index, action='raise ValueError("mine")'))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "on_exception.yaml").write_text(ON_EXCEPTION)
    configs = (QUICKSTART, tmp_path / "on_exception.yaml")
    settings = {**EVERY_VALIDATION, "trainer.callbacks+": f"raising{index}.Interrupting"}
    with pytest.raises(ValueError, match="mine"):
        main(fit_arguments(tmp_path / "cut", configs, settings))
    assert_goes_on(validated, fit, tmp_path, done=2 + index // 2)


@pytest.mark.slow
def test_so_does_a_run_that_ctrl_c_ended(validated, command, fit, tmp_path):
    action = "os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / "interrupting.py").write_text(INTERRUPTING.format(index=2, action=action))
    (tmp_path / "on_exception.yaml").write_text(ON_EXCEPTION)
    settings = {**EVERY_VALIDATION, "trainer.callbacks+": "interrupting.Interrupting"}
    arguments = fit_arguments(tmp_path / "cut", (QUICKSTART, tmp_path / "on_exception.yaml"), settings)
    assert command(*arguments, cwd=tmp_path).returncode == 1
    assert_goes_on(validated, fit, tmp_path, done=3)


def assert_goes_on(whole, fit, directory, done):
    saved = Run(directory / "cut").checkpoint_file(f"at{done}")
    resumed = fit(directory / "resumed", ckpt_path=saved, **EVERY_VALIDATION)
    assert_same_state(whole.checkpoint("step6"), resumed.checkpoint("round2"))
    assert logged(resumed, 0) == logged(whole, done)


def test_initial_metrics_survive_a_resume(uninterrupted, fit, every_step, tmp_path):
    resumed = fit(tmp_path, every_step, ckpt_path=uninterrupted.checkpoint_file("step4"), **SETTINGS)
    assert (resumed.directory / "metrics.json").read_text() == (uninterrupted.directory / "metrics.json").read_text()


def resume_arguments(run, step, directory, **settings):
    arguments = {"ckpt_path": run.checkpoint_file(f"step{step}"), "trainer.default_root_dir": directory, **settings}
    return ["fit", f"--config={run.directory / 'config.yaml'}", *options(arguments)]


def test_a_run_directory_can_be_moved(uninterrupted, fit, every_step, tmp_path):
    shutil.copytree(uninterrupted.directory, tmp_path / "moved")
    hidden = uninterrupted.directory / "rollouts"
    try:
        hidden.rename(tmp_path / "aside")
        checkpoint = tmp_path / "moved" / "checkpoints" / "step3.ckpt"
        resumed = fit(tmp_path / "resumed", every_step, ckpt_path=checkpoint, **SETTINGS)
    finally:
        (tmp_path / "aside").rename(hidden)
    assert_same_state(uninterrupted.checkpoint("step6"), resumed.checkpoint("step6"))


def drop_the_last_group(lines):
    return lines[:-1]


def exchange_two_groups(lines):
    return [lines[0], lines[2], lines[1], *lines[3:]]


def change_one_estimate(lines):
    row = json.loads(lines[1])
    return [lines[0], json.dumps({**row, "mu_hats": [1 - each for each in row["mu_hats"]]}) + "\n", *lines[2:]]


def change_the_seed(lines):
    """What is whole in itself, but not what the checkpoint knows, is another run's."""
    first = json.loads(lines[0])
    return [json.dumps({**first, "settings": {**first["settings"], "data.seed": "1"}}) + "\n", *lines[1:]]


@pytest.mark.parametrize("change", [drop_the_last_group, exchange_two_groups, change_one_estimate, change_the_seed])
def test_rollouts_that_were_changed_are_not_trained_on(change, uninterrupted, tmp_path, capsys):
    copied = Run.__new__(Run)
    copied.directory = shutil.copytree(uninterrupted.directory, tmp_path / "copied")
    file = uninterrupted.directory / "rollouts" / "round_00001.jsonl"
    before = file.read_text()
    try:
        file.write_text("".join(change(before.splitlines(keepends=True))))
        assert main(resume_arguments(copied, 3, tmp_path / "resumed")) == 2
    finally:
        file.write_text(before)
    message = capsys.readouterr().err
    assert str(file) in message
    assert "as they were written" in message
    assert str(copied.checkpoint_file("step3")) in message
    assert f"`--ckpt_path={copied.checkpoint_file('step6')}`" in message  # of a round's end


@pytest.mark.parametrize(
    "changed",
    [{"data.batch_size": 8}, {"trainer.accumulate_grad_batches": 4}, {"data.round.num_trained_rollouts": 2}],
)
def test_other_batches_are_refused_within_a_round_and_taken_at_its_end(changed, uninterrupted, tmp_path, capsys):
    assert main(resume_arguments(uninterrupted, 3, tmp_path / "within", **changed)) == 2
    assert "batches would be left out" in capsys.readouterr().err
    assert main(resume_arguments(uninterrupted, 2, tmp_path / "at_the_end", **changed)) == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data.seed": 5}, "data.seed 0 (now 5)"),
        ({"data.sampling.temperature": 0.5}, "(now Sampling(temperature=0.5"),
        ({"data.round.num_prompts_per_round": 8}, "(now RoundConfig(num_prompts_per_round=8"),
        ({"data.estimator": "MonteCarlo"}, "data.estimator Shrinkage("),
    ],
)
def test_other_settings_of_a_round_are_refused_within_it(changed, said, uninterrupted, tmp_path, capsys):
    assert main(resume_arguments(uninterrupted, 3, tmp_path, **changed)) == 2
    assert said in capsys.readouterr().err


def test_a_new_learning_rate_is_applied_and_said(uninterrupted, tmp_path):
    settings = {"model.optimizer.init_args.lr": 1e-4, "model.optimizer.init_args.weight_decay": 0.3}
    with pytest.warns(UserWarning, match=r"weight_decay 0\.3 .*lr 0\.0001 \(the checkpoint's: 0\.0012\)"):
        assert main(resume_arguments(uninterrupted, 4, tmp_path, **settings)) == 0
    groups = [
        run.checkpoint("step6")["optimizer_states"][0]["param_groups"][0] for run in (uninterrupted, Run(tmp_path))
    ]
    assert [group["initial_lr"] for group in groups] == [1.2e-3, 1e-4]
    assert groups[1]["lr"] == pytest.approx(groups[0]["lr"] / 12)
    assert groups[1]["weight_decay"] == 0.3


def test_another_optimizer_cannot_go_on_from_a_checkpoint(uninterrupted, tmp_path, capsys):
    (tmp_path / "sgd.yaml").write_text("model: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}}")
    arguments = resume_arguments(uninterrupted, 4, tmp_path)
    assert main([*arguments, f"--config={tmp_path / 'sgd.yaml'}"]) == 2
    assert "another optimizer" in capsys.readouterr().err


def test_lost_rollouts_of_an_interrupted_round_are_an_error(uninterrupted, tmp_path, capsys):
    hidden = uninterrupted.directory / "rollouts"
    try:
        hidden.rename(tmp_path / "aside")
        assert main(resume_arguments(uninterrupted, 3, tmp_path / "resumed")) == 2
    finally:
        (tmp_path / "aside").rename(hidden)
    message = capsys.readouterr().err
    assert "rollouts of a round" in message
    assert f"`--ckpt_path={uninterrupted.checkpoint_file('step6')}`" in message
    assert "end of a round" in message


def test_a_damaged_checkpoint_is_refused_and_the_newest_sound_one_offered(uninterrupted, tmp_path, capsys):
    copied = Run.__new__(Run)
    copied.directory = shutil.copytree(uninterrupted.directory, tmp_path / "copied")
    damaged = copied.checkpoint_file("step6")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert main(resume_arguments(copied, 6, tmp_path / "resumed")) == 2
    message = capsys.readouterr().err
    assert f"{damaged} is none that can be used: it is damaged at " in message
    assert f"`--ckpt_path={copied.checkpoint_file('step5')}`" in message
    assert "Traceback" not in message
