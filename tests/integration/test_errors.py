"""What goes wrong ends in one screen that says what, where and how to mend it, and in a non-zero exit status."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from caopd.cli import main
from caopd.methods import SDFT
from caopd.models.tiny import build_model, build_tokenizer
from caopd.tasks import DrawTask
from caopd.training.datamodule import RolloutDataModule

from .conftest import QUICKSTART, fit_arguments


@pytest.fixture
def failure(tmp_path, capsys, request):
    """Run a fit that must fail, and return its message."""

    def run(*arguments, config=request.config.rootpath / "configs" / "quickstart.yaml"):
        small = ("--data.task.num_train=256", "--data.task.num_validation=4", "--trainer.enable_progress_bar=false")
        small = small if not any("data.task" in argument for argument in arguments) else small[2:]
        status = main(["fit", f"--config={config}", f"--trainer.default_root_dir={tmp_path}", *small, *arguments])
        assert status != 0
        output = capsys.readouterr()
        assert "Traceback" not in output.err + output.out
        message = output.err[output.err.index("error: ") :]
        assert len(message.splitlines()) <= 24
        return message

    return run


@pytest.fixture
def science(tmp_path):
    """Arguments for a science task on the given rows."""

    def arguments(rows):
        file = tmp_path / "chemistry.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"files": dict.fromkeys(("train", "validation", "test"), str(file))}
        task = {"class_path": "caopd.tasks.ScienceQA", "init_args": {"source": source}}
        config = tmp_path / "task.yaml"
        config.write_text(json.dumps({"data": {"task": task, "round": {"num_prompts_per_round": 64}}}))
        return f"--config={config}", "--data.sampling.max_new_tokens=8"

    return arguments


def rows(number=64, **changes):
    row = {"prompt": "Which gas is noble?\nA: neon\nB: iron\nC: tin\nD: zinc", "answer": "A", **changes}
    return [{**row, "idx": index} for index in range(number)]


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


def stage(name="odd", num_rounds=1, num_train=256):
    task = {"kinds": ["odd"], "num_train": num_train, "num_validation": 4, "num_test": 4}
    task = {"class_path": "caopd.tasks.DrawTask", "init_args": task}
    return {"name": name, "num_rounds": num_rounds, "task": task}


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([stage("a/b")], ("'a/b'", "test/NAME/ece")),
        ([stage(num_rounds=60), stage("high", 60)], ("max_epochs", "120 (odd 60, high 60)", "100")),
        ([stage(num_rounds=40), stage("high", 60)], ("'odd' ends after round 40", "check_val_every_n_epoch` is 25")),
        ([stage(num_rounds=50), stage("high", 50, num_train=99)], ("task of stage 'high' has 99",)),
    ],
)
def test_a_sequence_of_tasks_that_cannot_be(failure, stages, words, tmp_path):
    task = {"class_path": "caopd.tasks.TaskSequence", "init_args": {"stages": stages}}
    (tmp_path / "stages.yaml").write_text(json.dumps({"data": {"task": task}}))
    message = failure(f"--config={tmp_path / 'stages.yaml'}", "--data.evaluation.batch_size=4")
    for word in words:
        assert word in message


def test_tasks_of_an_evaluation_that_cannot_be(failure, tmp_path):
    tasks = {"odd": stage()["task"]}
    sequence = {"class_path": "caopd.tasks.TaskSequence", "init_args": {"stages": [stage(num_rounds=100)]}}
    data = {"task": sequence, "evaluation": {"tasks": tasks}}
    (tmp_path / "twice.yaml").write_text(json.dumps({"data": data}))
    assert "odd more than once" in failure(f"--config={tmp_path / 'twice.yaml'}", "--data.seed=1")
    assert "0 for the greedy ones alone" in failure("--data.evaluation.num_samples=-1")
    assert "`data.evaluation.num_samples` to 0" in failure("--data.sampling.temperature=0")
    assert "validate_tasks" in failure("--data.evaluation.validate_tasks=true")


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


def test_too_few_prompts(failure):
    message = failure("--data.task.num_train=100", "--data.task.num_validation=4")
    assert "100" in message
    assert "num_prompts_per_round" in message


def test_dataloaders_that_are_not_reloaded(failure):
    assert "reload_dataloaders_every_n_epochs" in failure("--trainer.reload_dataloaders_every_n_epochs=0")


def test_a_missing_data_file(failure, science, tmp_path):
    arguments = science(rows())
    (tmp_path / "chemistry.jsonl").unlink()
    assert "chemistry.jsonl" in failure(*arguments)


def test_a_row_without_an_answer(failure, science):
    data = rows()
    del data[5]["answer"]
    message = failure(*science(data))
    assert "answer" in message
    assert "6" in message  # the sixth line


def test_a_row_without_demonstration_has_no_teacher(failure, tmp_path, monkeypatch):
    (tmp_path / "undemonstrated.py").write_text(
        "from collections.abc import Sequence\n"
        "from dataclasses import dataclass, replace\n"
        "from caopd.tasks import DrawTask\n"
        "from caopd.types import Example\n"
        "@dataclass(frozen=True)\n"
        "class Undemonstrated(DrawTask):\n"
        "    def examples(self, split: str) -> Sequence[Example]:\n"
        "        return [replace(example, demonstration=None) for example in super().examples(split)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    message = failure("--data.task=undemonstrated.Undemonstrated", "--data.task.num_validation=4")
    assert "demonstration" in message
    assert "SDPO" in message


def test_a_prompt_longer_than_the_model(failure, science):
    message = failure(*science(rows(prompt="word " * 300)))
    assert "chemistry-0" in message
    assert "takes 512" in message
    assert "max_new_tokens" in message


def test_a_demonstration_that_would_be_cut(failure, science):
    message = failure(*science(rows(demonstration="word " * 300)), "--data.evaluation.max_new_tokens=8")
    assert "teacher's prompt (demonstration)" in message
    assert "chemistry-0" in message
    assert "Nothing is cut" in message


def test_a_tokenizer_without_chat_template(failure, tmp_path):
    tokenizer = build_tokenizer()
    build_model(tokenizer, width=32, num_layers=1).save_pretrained(tmp_path / "model")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "model")
    message = failure(f"--model.source.name_or_path={tmp_path / 'model'}")
    assert "chat template" in message
    assert "instruct model" in message


@pytest.mark.parametrize("template", ["{{ raise_exception('no user here') }}", "{% for"])
def test_a_chat_template_that_does_not_render(failure, tmp_path, template):
    tokenizer = build_tokenizer()
    build_model(tokenizer, width=32, num_layers=1).save_pretrained(tmp_path / "model")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path / "model")
    message = failure(f"--model.source.name_or_path={tmp_path / 'model'}")
    assert "Expected the chat template" in message
    assert "roles user" in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model.method=CaOPD", "--model.method.backbone=GRPO"), "GRPO"),
        (("--model.method=SFT", "--model.method.demonstration_confidence=sure"), "Got value: sure"),
    ],
)
def test_a_methods_setting_of_another_kind(failure, arguments, said):
    message = failure(*arguments)
    assert "model.method" in message
    assert said in message


@pytest.mark.parametrize(
    ("precision", "said"),
    [("16-true", "take bf16-mixed"), ("64-true", "32-true"), ("transformer-engine", "transformer")],
)
def test_a_precision_that_converts_batches(failure, precision, said):
    assert said in failure(f"--trainer.precision={precision}")


def test_an_adapter_of_the_embedding(failure):
    message = failure("--model.source.lora.rank=2", "--model.source.lora.target_modules=[embed_tokens, k_proj]")
    assert "`target_modules` of LoRA" in message
    assert "leave out model.embed_tokens" in message


def test_a_missing_model(failure):
    assert "/nowhere/model" in failure("--model.source.name_or_path=/nowhere/model")


def test_an_unknown_command(capsys):
    assert main(["train"]) == 2
    assert "fit, validate, test, predict" in capsys.readouterr().err


def test_a_missing_checkpoint(failure):
    message = failure("--ckpt_path=nowhere.ckpt")
    assert "nowhere.ckpt" in message
    assert "checkpoints/" in message


def test_a_file_that_is_no_checkpoint(failure, request):
    message = failure(f"--ckpt_path={request.config.rootpath / 'pyproject.toml'}")
    assert "pyproject.toml" in message
    assert "another kind of file" in message


@pytest.mark.parametrize("keyword", ["best", "hpc", "registry", ""])
def test_a_checkpoint_that_only_a_finished_fit_could_name(failure, keyword):
    assert "a checkpoint file or `last`" in failure(f"--ckpt_path={keyword}")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_nothing_is_evaluated_where_there_is_no_last_checkpoint(command, tmp_path, capsys, request):
    """Lightning would warn, and evaluate the model that training began with."""
    config = request.config.rootpath / "configs" / "quickstart.yaml"
    assert main([command, f"--config={config}", f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last"]) == 2
    message = capsys.readouterr().err
    assert f"find a checkpoint below {tmp_path}" in message
    assert "Traceback" not in message


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


def test_a_checkpoint_changes_no_setting(fit, tmp_path, capsys):
    """As Lightning's command line would, from what a received file calls its hyper-parameters."""
    run = fit(tmp_path / "run", **{"trainer.max_epochs": 1})
    checkpoint = run.checkpoint("round0")
    checkpoint["hyper_parameters"] = {
        "source": {"name_or_path": str(tmp_path / "elsewhere"), "trust_remote_code": True},
        "method": {"class_path": "caopd.methods.GRPO"},
        "_instantiator": "nobody.knows",
    }
    torch.save(checkpoint, tmp_path / "received.ckpt")
    root = f"--trainer.default_root_dir={tmp_path / 'again'}"
    arguments = [f"--config={run.directory / 'config.yaml'}", f"--ckpt_path={tmp_path / 'received.ckpt'}", root]
    assert main(["fit", *arguments]) == 0
    config = next((tmp_path / "again").rglob("config.yaml")).read_text()
    assert "trust_remote_code: false" in config
    assert "name_or_path: embedded" in config
    assert "GRPO" not in config


def test_a_checkpoint_of_another_model(failure, fit, tmp_path):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer, width=32, num_layers=1).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    source = {"model.source.name_or_path": tmp_path / "model", "trainer.max_epochs": 1}
    run = fit(tmp_path / "run", **source)
    message = failure(f"--ckpt_path={run.checkpoint_file('round0')}")
    assert "another model" in message
    assert "model.source" in message


def test_rounds_that_accumulation_would_not_see_whole(failure):
    message = failure("--trainer.limit_train_batches=2", "--trainer.accumulate_grad_batches=4")
    assert "limit_train_batches = 2" in message
    assert "num_prompts_per_round" in message


def test_rollouts_that_would_not_fit_as_a_context(failure):
    message = failure("--model.method=SDPO", "--data.sampling.max_new_tokens=250")
    assert "teacher's prompt (solution)" in message


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
        (("--data.task=DrawTask",), ("data.task", "write 'caopd.tasks.DrawTask'")),
        (("--data.confidence=RLCRConfidence",), ("write 'caopd.confidence.RLCRConfidence'",)),
    ],
)
def test_a_class_that_nothing_goes_by(failure, arguments, said):
    message = failure(*arguments)
    assert all(words in message for words in said), message


OWN = """
from dataclasses import dataclass, field

from caopd.tasks import DrawTask
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers import Verifier


class Table:
    def verify(self, text: str, target: str) -> Verdict:
        raise PermissionError("answers.sqlite")


class Points:
    def verify(self, text: str, target: str) -> Verdict:
        return Verdict(0.75, text, AnswerOutcome.PARSED)


@dataclass(frozen=True)
class Looking(DrawTask):
    verifier: Verifier = field(default=Table(), init=False)


@dataclass(frozen=True)
class Counting(DrawTask):
    verifier: Verifier = field(default=Points(), init=False)
"""


FEW = ["--data.task.num_validation=4", "--data.round.num_prompts_per_round=32"]


@pytest.fixture
def own_tasks(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_tasks")
def test_an_error_of_the_users_verifier_keeps_its_traceback_and_fails_the_run(request, tmp_path, capsys):
    config = request.config.rootpath / "configs" / "quickstart.yaml"
    arguments = [f"--config={config}", f"--trainer.default_root_dir={tmp_path}", "--data.task=own_tasks.Looking"]
    assert main(["fit", *arguments, *FEW]) == 1
    shown, message = capsys.readouterr().err.split("\nerror: ")
    assert 'raise PermissionError("answers.sqlite")' in shown
    assert shown.rstrip().endswith("PermissionError: answers.sqlite")
    assert len(shown[shown.index("Traceback") :].splitlines()) <= 12
    for word in ("own_tasks.Table", "example '", "PermissionError: answers.sqlite"):
        assert word in message


@pytest.mark.usefixtures("own_tasks")
def test_a_verdict_of_points(failure):
    message = failure("--data.task=own_tasks.Counting", *FEW)
    for word in ("own_tasks.Points", "correct=0.75", "example '"):
        assert word in message
