"""Optimizer steps whose loss or gradient is not finite: what is saved of them, and what leaving them out leaves alone.

A loss of the tests' own gives the bad numbers, so that it is known beforehand in which micro-batch they are.
"""

import json
import math
import re
import sys

import pytest
import torch

from caopd.cli import main

from .conftest import EVERY_STEP, QUICKSTART, SIZES, STRATEGIES, Run, fit_arguments

FLAWED = """
from torch import distributed
from caopd.losses import DistillationLoss

class Flawed(DistillationLoss):
    # `losses` and `gradients`: in which of its calls these are not finite; `process`: in which process alone.
    def __init__(self, losses=(), gradients=(), process=None, **settings):
        super().__init__(**settings)
        self.losses, self.gradients, self.process = list(losses), list(gradients), process
        self.num_calls, self.totals = 0, []

    def __call__(self, *arguments):
        output, number = super().__call__(*arguments), self.num_calls
        self.num_calls += 1
        self.totals.append(output.totals)
        Flawed.last = self
        if self.process is not None and distributed.get_rank() != self.process:
            return output
        loss = output.loss
        if number in self.losses:
            loss = loss * float("nan")
        if number in self.gradients:  # the derivative of a root is infinite at 0, and that of |x| is 0 there
            loss = loss + (loss - loss.detach()).abs().sqrt()
        return output._replace(loss=loss)
"""
ADAM = {"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": "1e-3", "model.optimizer.betas": "[0.9, 0.98]"}
MOMENTUM = {"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": "0.05", "model.optimizer.momentum": "0.9"}
SCALED = """
trainer:
  plugins:
    - class_path: lightning.pytorch.plugins.MixedPrecision
      init_args:
        precision: 16-mixed
        device: cpu
        scaler: {class_path: torch.amp.GradScaler, init_args: {device: cpu, init_scale: 1024}}
"""


@pytest.fixture(autouse=True)
def flawed(tmp_path, monkeypatch):
    """The module of the loss, where a user would put it."""
    (tmp_path / "flawed.py").write_text(FLAWED)
    (tmp_path / "every_step.yaml").write_text(EVERY_STEP)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("flawed", None)


def settings_of(skip=True, limit=10, **flaws):
    """Two micro-batches to a step, and so two steps to each of two rounds; the teacher moves so that one can see it."""
    return {
        "trainer.accumulate_grad_batches": 2,
        "model.loss": "flawed.Flawed",
        **{f"model.loss.{name}": json.dumps(value) for name, value in flaws.items()},
        "model.teacher.rate": 0.1,
        "model.nonfinite.action": "skip" if skip else "stop",
        "model.nonfinite.limit": limit,
    }


def fitted(tmp_path, name, settings, status=0):
    arguments = fit_arguments(tmp_path / name, (QUICKSTART, tmp_path / "every_step.yaml"), settings)
    assert main(arguments) == status
    return Run(tmp_path / name)


def steps(run, tag):
    return [event.step for event in run.events.Scalars(tag)]


def same(first, second, but=()):
    """Whether two nested values of a checkpoint are equal, bit by bit, but for the entries of dicts so named."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k], but) for k in first if k not in but)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second, [but] * len(first)))
    return first == second


@pytest.mark.parametrize(("optimizer", "flaw"), [(ADAM, "losses"), (MOMENTUM, "gradients")])
def test_a_step_that_is_left_out_changes_nothing(optimizer, flaw, tmp_path):
    run = fitted(tmp_path, "run", {**settings_of(**{flaw: [3]}), **optimizer})
    before, after, last = (run.checkpoint(f"step{number}") for number in (1, 2, 3))
    assert any("teacher" in name for name in before["state_dict"])
    assert same(before["state_dict"], after["state_dict"])
    assert before["optimizer_states"][0]["state"]  # one step has been made
    # Only the schedule goes on.
    assert same(before["optimizer_states"], after["optimizer_states"], but=("lr",))
    assert after["lr_schedulers"][0]["last_epoch"] == 2
    assert not same(after["state_dict"], last["state_dict"])
    assert (after["global_step"], after["caopd"]["left_out_steps"]["by_setting"]) == (2, 1)


def test_a_step_that_is_left_out_has_no_part_in_what_is_logged(tmp_path):
    run = fitted(tmp_path, "run", settings_of(gradients=[2]))
    assert [math.isnan(loss) for loss in run.scalars("train/loss")] == [False, True, False, False]
    assert (steps(run, "train/skipped_steps"), run.scalars("train/skipped_steps")) == ([1, 2, 3], [1.0] * 3)
    pairs = [totals["kl_body"] for totals in sys.modules["flawed"].Flawed.last.totals]
    of_rounds = [pairs[:2], pairs[4:]]  # micro-batches 2 and 3 are those of the step
    expected = [float(sum(t for t, _ in pairs) / sum(n for _, n in pairs)) for pairs in of_rounds]
    assert run.scalars("train/kl_body") == pytest.approx(expected, rel=1e-5)


def test_a_finite_run_is_the_same_whatever_the_setting(tmp_path):
    one, other = (fitted(tmp_path, name, settings_of(skip=name == "skip")) for name in ("stop", "skip"))
    assert one.scalars("train/loss") == other.scalars("train/loss")
    assert same(one.checkpoint("step4")["state_dict"], other.checkpoint("step4")["state_dict"])
    assert "train/skipped_steps" not in one.events.Tags()["scalars"]
    assert not (one.directory / "nonfinite").exists()


def test_a_resumed_run_counts_on_and_ends_as_an_uninterrupted_one(tmp_path):
    """Micro-batches 2 and 5 are bad; the interruptions are within a round, before and after both, and between two."""
    whole = fitted(tmp_path, "whole", {**settings_of(limit=2, losses=[2, 5]), **ADAM})
    assert whole.scalars("train/skipped_steps") == [1.0, 2.0, 2.0]
    for step, losses in ((1, [0, 3]), (2, [1]), (3, [])):
        later = {**settings_of(limit=2, losses=losses), **ADAM, "ckpt_path": whole.checkpoint_file(f"step{step}")}
        resumed = fitted(tmp_path, f"resumed{step}", later)
        for tag, count in (("train/loss", 4 - step), ("train/kl_body", 2 if step < 3 else 1)):
            expected = whole.scalars(tag)[-count:]
            assert resumed.scalars(tag) == pytest.approx(expected, abs=0, nan_ok=True), (step, tag)
        assert resumed.scalars("train/skipped_steps") == whole.scalars("train/skipped_steps")[step - 1 :]
        last, expected = (run.checkpoint("step4") for run in (resumed, whole))
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert same(last[part], expected[part]), (step, part)
        for part in ("left_out_steps", "training_means"):
            assert last["caopd"][part] == expected["caopd"][part], (step, part)


def test_one_more_step_than_the_limit_ends_the_run_and_a_resumed_one(tmp_path, capsys):
    at_once = fitted(tmp_path, "at_once", settings_of(limit=2, losses=[0, 2, 5]), status=1)
    message = capsys.readouterr().err
    assert "optimizer step 2, in round 1, has a loss of nan, and the run has left out 2 steps" in message
    assert "`model.nonfinite.limit`" in message
    assert at_once.scalars("train/skipped_steps") == [1.0, 2.0]
    later = {**settings_of(limit=2, losses=[1]), "ckpt_path": at_once.checkpoint_file("step2")}
    fitted(tmp_path, "later", later, status=1)
    assert "optimizer step 2, in round 1, has a loss of nan, and the run has left out 2" in capsys.readouterr().err


def test_the_message_of_a_stop_names_the_micro_batch_and_its_file_holds_it(tmp_path, capsys):
    run = fitted(tmp_path, "run", settings_of(skip=False, losses=[7]), status=1)
    message = capsys.readouterr().err
    assert "optimizer step 3, in round 1, has a loss of nan" in message
    assert "micro-batch 3 of the round, in process 0" in message
    for remedy in ("`model.optimizer.init_args.lr`", "`model.nonfinite.action: skip`"):
        assert remedy in message
    (path,) = (run.directory / "nonfinite").iterdir()
    assert path.name == "step_3.rank0.pt"
    assert str(path) in message
    saved = torch.load(path, weights_only=True)
    assert (saved["step"], saved["round"], saved["process"], saved["problem"]) == (3, 1, 0, "a loss of nan")
    assert [one["number"] for one in saved["micro_batches"]] == [2, 3]
    assert [math.isnan(one["loss"]) for one in saved["micro_batches"]] == [False, True]
    assert saved["gradients_not_finite"]
    assert not saved["weights_not_finite"]
    assert prompts_of(saved) <= prompts_in(run.directory / "rollouts" / "round_00001.jsonl")
    assert run.checkpoint("step3")["global_step"] == 3  # the last good one


def prompts_of(saved):
    """The prompts of the saved sequences, as the student saw them."""
    found = set()
    for one in saved["micro_batches"]:
        batch = one["batch"]
        rows = {name: values.flatten() for name, values in batch["student"].items() if name.endswith("_BL")}
        for index in batch["student"]["predictor_T"].tolist():
            if rows["branch_BL"][index] == rows["trunk_BL"][index]:  # the end of a prompt
                start = index - int(rows["position_BL"][index])
                found.add(tuple(rows["ids_BL"][start : index + 1].tolist()))
    assert len(found) > 4
    return found


def prompts_in(path):
    return {tuple(json.loads(line)["prompt_ids"]) for line in path.read_text().splitlines()[1:]}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_leave_out_the_same_steps(strategy, command, tmp_path):
    """The loss of process 1 alone is NaN, once."""
    settings = {**settings_of(losses=[2], process=1), **STRATEGIES[strategy], "trainer.devices": 2}
    configs = (QUICKSTART, tmp_path / "every_step.yaml")
    result = command(*fit_arguments(tmp_path / "run", configs, settings), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    run = Run(tmp_path / "run")
    path = run.directory / "nonfinite" / "step_1.rank1.pt"
    assert re.search(r"Optimizer step 1, in round 1, .*micro-batch 0 of the round, in process 1", result.stderr)
    assert str(path) in result.stderr
    assert sorted(file.name for file in path.parent.iterdir()) == ["step_1.rank0.pt", "step_1.rank1.pt"]
    assert [torch.load(file, weights_only=True)["process"] for file in sorted(path.parent.iterdir())] == [0, 1]
    assert same(run.checkpoint("step1")["state_dict"], run.checkpoint("step2")["state_dict"])
    assert run.scalars("train/skipped_steps") == [1.0]
    assert [math.isnan(loss) for loss in run.scalars("train/loss")] == [False, True]


def test_a_step_that_the_scaler_leaves_out_moves_no_teacher(tmp_path):
    """In 16-bit floats, on a CPU: the scaler's own rule, which lowers its scale where a gradient overflows."""
    (tmp_path / "scaled.yaml").write_text(SCALED)
    settings = settings_of(skip=False, gradients=[2, 5])
    configs = (QUICKSTART, tmp_path / "every_step.yaml", tmp_path / "scaled.yaml")
    assert main(fit_arguments(tmp_path / "run", configs, settings)) == 0
    run = Run(tmp_path / "run")
    scales = [run.checkpoint(f"step{number}")["MixedPrecision"]["scale"] for number in (1, 2, 3, 4)]
    assert scales == [1024, 512, 256, 256]
    assert same(run.checkpoint("step1")["state_dict"], run.checkpoint("step2")["state_dict"])
    assert not same(run.checkpoint("step3")["state_dict"], run.checkpoint("step4")["state_dict"])
    assert run.scalars("train/skipped_steps") == [1.0, 2.0, 2.0]
    assert all(map(math.isfinite, run.scalars("train/loss")))  # the loss itself has no flaw
    expected = {"by_setting": 0, "by_scaler": 2, "by_scaler_in_a_row": 0}
    assert run.checkpoint("step4")["caopd"]["left_out_steps"] == expected


def test_a_scaler_that_leaves_out_every_step_ends_the_run(tmp_path, capsys):
    (tmp_path / "scaled.yaml").write_text(SCALED)
    settings = {**settings_of(gradients=list(range(32))), "trainer.accumulate_grad_batches": 1, "data.batch_size": 1}
    assert main(fit_arguments(tmp_path / "run", (QUICKSTART, tmp_path / "scaled.yaml"), settings)) == 1
    message = capsys.readouterr().err
    assert "optimizer step 20, in round 1, has a gradient of norm nan, like the 20 steps before it" in message


@pytest.mark.slow
def test_a_user_learns_where_a_run_stopped_and_goes_on_past_it(command, tmp_path):
    """With every default on: the first command stops, and with `skip` it goes on from what is left, to the end."""
    settings = {**settings_of(skip=False, losses=[5]), "trainer.default_root_dir": "runs"}
    stopped = command(*fit_arguments("runs", (QUICKSTART,), settings, SIZES), cwd=tmp_path)
    assert stopped.returncode == 1, stopped.stderr[-4000:]
    message = stopped.stderr[stopped.stderr.rindex("error: ") :]
    assert "Traceback" not in stopped.stderr
    assert "optimizer step 2, in round 1, has a loss of nan" in message
    (saved,) = re.findall(r"\S+/nonfinite/step_2\.rank0\.pt", message)
    assert [one["number"] for one in torch.load(tmp_path / saved, weights_only=True)["micro_batches"]] == [0, 1]
    (kept,) = tmp_path.rglob("*.ckpt")
    settings |= {"model.nonfinite.action": "skip", "model.loss.losses": "[1]", "ckpt_path": kept}
    resumed = command(*fit_arguments("runs", (QUICKSTART,), settings, SIZES), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    assert "number 1 of at most 10 (`model.nonfinite.limit`)" in resumed.stderr
