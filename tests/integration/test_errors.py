"""What goes wrong ends in one screen that says what, where and how to mend it, and in a non-zero exit status."""

import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from caopd.cli import main
from caopd.errors import ConfigError
from caopd.methods import SDFT
from caopd.tasks import DrawTask
from caopd.training.checks import check_gpus
from caopd.training.datamodule import RolloutDataModule

from .conftest import QUICKSTART, fit_arguments

NOWHERE = "http://localhost:9"
"""Where nothing listens."""


def test_a_folder_of_runs_whose_name_is_not_utf8(failure):
    message = failure("--trainer.default_root_dir=caf\udce9")
    assert r"`trainer.default_root_dir` to be a path in UTF-8, but got caf\udce9" in message


def test_a_probe_of_a_teacher_without_context(failure):
    message = failure("--model.method=GRPO", "--data.teacher_probe.every_num_rounds=1", "--data.batch_size=64")
    assert "data.teacher_probe" in message
    assert "GRPO" in message


def test_rollouts_that_would_all_be_the_same(failure):
    for greedy in ("--data.sampling.temperature=0", "--data.sampling.top_k=1"):
        message = failure(greedy, "--data.round.num_rollouts=8", "--data.evaluation.num_samples=0")
        assert "8 completions of a prompt would all be the same" in message


def test_an_adaptive_budget_that_cannot_be(failure):
    adaptive = "--data.round.adaptive.num_rollouts_per_batch=4"
    message = failure(adaptive, "--data.round.num_trained_rollouts=8")
    assert "data.round.num_trained_rollouts" in message
    message = failure(adaptive, "--data.estimator=SelfConsistency")
    assert "data.round.adaptive" in message
    assert "its own verdict" in failure(adaptive, "--data.estimator=LeaveOneOut", "--data.round.num_trained_rollouts=2")
    several = ("--data.round.num_trained_rollouts=2", "--data.batch_size=64")
    assert "fixed size with GRPO" in failure(adaptive, "--model.method=GRPO", *several)
    assert "at least 2 for LeaveOneOut" in failure(
        "--data.estimator=LeaveOneOut", "--data.round.num_rollouts=1", "--data.batch_size=16"
    )


def test_an_unknown_key(failure):
    assert "trainer.max_epochz" in failure("--trainer.max_epochz=3")


def test_an_unknown_key_in_a_file(failure, tmp_path):
    (tmp_path / "wrong.yaml").write_text("data: {rounds: {num_rollouts: 3}}")
    assert "data.rounds" in failure(f"--config={tmp_path / 'wrong.yaml'}")


def test_a_missing_config_file(failure):
    assert "nowhere.yaml" in failure(config="nowhere.yaml")


def test_an_unknown_method(failure):
    message = failure("--model.method=SDTF")
    assert "model.method" in message
    assert "SDTF" in message


def test_an_unknown_divergence(failure):
    message = failure("--model.loss.body=ReversKL")
    assert "model.loss" in message
    assert "Did you mean 'ReverseKL'" in message


def test_one_rollout_cannot_be_its_own_solution(failure):
    message = failure("--model.method=SDPO", "--data.round.num_rollouts=1")
    assert "at least 2 for SDPO" in message


def test_a_rate_out_of_range(failure):
    assert "`rate` of EMA to be between 0 and 1, but got 1.5" in failure("--model.teacher.rate=1.5")


def test_several_steps_on_samples_that_must_be_the_students(failure):
    message = failure("--model.method=SDFT", "--model.loss=VOPDLoss")
    assert "one optimizer step a round with VOPDLoss, but got 8" in message
    assert "accumulate_grad_batches" in message


def test_a_batch_that_does_not_divide(failure):
    message = failure("--data.batch_size=7")
    assert "256" in message
    assert "data.batch_size" in message


def test_dataloaders_that_are_not_reloaded(failure):
    assert "reload_dataloaders_every_n_epochs" in failure("--trainer.reload_dataloaders_every_n_epochs=0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model.method=CaOPD", "--model.method.backbone=GRPO"), "GRPO"),
        (
            ("--model.method=SFT", "--model.method.demonstration_confidence=sure"),
            "`uniform`, or null for none, but got",
        ),
    ],
)
def test_a_methods_setting_of_another_kind(failure, arguments, said):
    message = failure(*arguments)
    assert "model.method" in message
    assert said in message


def test_an_unknown_command(capsys):
    assert main(["train"]) == 2
    assert "fit, validate, test, predict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--trainer.callbacks+=ModelCheckpoint",), "more than one stateful callback of type `ModelCheckpoint`"),
        (("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/greedy/ece") * 2, "EarlyStopping"),
        (("--trainer.logger=CometLogger",), "comet"),
        (("--trainer.profiler=nothing",), "profiler"),
        (("--trainer.devices=0",), "devices"),
    ],
)
def test_a_trainer_that_cannot_be_made(failure, arguments, said):
    """Lightning refuses with errors of many classes."""
    assert said in failure(*arguments)


def test_a_setting_that_lightning_refuses_as_it_runs(failure):
    assert "`val_check_interval` (100)" in failure("--trainer.val_check_interval=100")


def test_a_method_of_the_data(failure):
    """It is the module's alone: two that differ once trained to nothing."""
    assert "data.method" in failure("--data.method=SDFT")
    with pytest.raises(TypeError):
        RolloutDataModule(DrawTask(num_train=4), SDFT())


def test_rounds_that_accumulation_would_not_see_whole(failure):
    message = failure("--trainer.limit_train_batches=2", "--trainer.accumulate_grad_batches=4")
    assert "limit_train_batches = 2" in message
    assert "num_prompts_per_round" in message


def test_a_terminated_run_says_so(tmp_path):
    """Schedulers must not take a preempted job for a finished one."""
    arguments = fit_arguments(tmp_path, (QUICKSTART,), {"trainer.max_epochs": 1000})
    command = [sys.executable, "-m", "caopd", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            if list(tmp_path.rglob("*.ckpt")) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=120) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model.method=GRPO", "--model.method.rewards=[Brir]"), ("model.method", "Did you mean 'Brier'?")),
        (("--model.method=sdft",), ("model.method", "Did you mean 'SDFT'?")),
        (("--data.estimator=Bayes",), ("data.estimator", "EmpiricalBayes, ", "`package.module.Class`")),
        (("--data.task=DrawTsk",), ("data.task", "Did you mean 'DrawTask'?")),
        (("--data.confidence=RLCConfidence",), ("Did you mean 'RLCRConfidence'?",)),
    ],
)
def test_a_class_that_nothing_goes_by(failure, arguments, said):
    message = failure(*arguments)
    assert all(words in message for words in said), message


def test_protocols_take_short_names_too(capsys):
    names = {"data.engine": "TransformersEngine", "data.confidence": "TagConfidence", "data.task": "DrawTask"}
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=quickstart", *(f"--{key}={name}" for key, name in names.items()), "--print_config"])
    assert not ended.value.code
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert [data[key.partition(".")[2]]["class_path"] for key in names] == [f"caopd.{name}" for name in names.values()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--trainer.precision=bf16-true",), "take bf16-mixed for bf16-true"),
        (("--trainer.precision=64-true",), "32-true for 64-true"),
        (("--ckpt_path=best",), "checkpoint file or `last`, but there is no file 'best'"),
        (("--ckpt_path=configs/quickstart.yaml",), "checkpoint that `caopd fit` wrote"),
        (("--trainer.callbacks+=LearningRateFinder",), "`--model.optimizer.lr`"),
        (("--trainer.callbacks+=BatchSizeFinder",), "`--data.batch_size`"),
        (("--model.source.attn_implementation=flash_attention_3",), "install it. transformers says: Flash"),
        (("--trainer.accelerator=gpu", "--trainer.devices=8"), "`--trainer.accelerator=cpu --trainer.devices=1"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_what_many_try_first(failure, monkeypatch, request, arguments, said):
    monkeypatch.chdir(request.config.rootpath)
    message = failure(*arguments)
    assert said in message
    assert "goes on with it" not in message, "nothing could go on"


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_gpus("gpu", 2)
    check_gpus("cpu", 8)
    check_gpus("gpu", "auto")
    with pytest.raises(ConfigError, match=r"Expected 8 GPUs.*torch finds 2.*`--trainer.devices=2`"):
        check_gpus("gpu", 8)


def test_a_name_on_a_hub_that_cannot_be_reached(command, tmp_path):
    """At once: the hub's own client asks for a minute."""
    for argument, said in (
        ("--model.source.name_or_path=caopd/nothing", "could not load it"),
        (
            "--data.task={class_path: ScienceQA, init_args: {source: {path: caopd/nothing}}}",
            "the hub cannot be reached",
        ),
    ):
        result = command("fit", "--config=quickstart", argument, cwd=tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=NOWHERE)
        assert result.returncode == 2, result.stderr
        assert said in result.stderr
        assert "Traceback" not in result.stderr
        assert "Retry" not in result.stderr
