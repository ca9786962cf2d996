"""Whole runs in which the verifier does not return for some completions. The oracle judges them again, without it."""

import json
from statistics import fmean
from zlib import crc32

import pytest

from caopd.cli import main
from caopd.confidence import InlineConfidence
from caopd.rounds.buffer import load_groups
from caopd.types import strip_segment
from caopd.verifiers import ExactMatch

from .conftest import QUICKSTART, Run, options

OWN = """
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from caopd.methods.rewards import Reward
from caopd.tasks import DrawTask
from caopd.types import Example
from caopd.verifiers import ExactMatch, Verifier


class Stalling:
    def verify(self, text, target):
        if target.startswith("some ") and crc32(text.encode()) % 2 or target.startswith("all "):
            while True:
                pass
        return ExactMatch().verify(text, target.split()[-1])


@dataclass(frozen=True)
class StallingTask(DrawTask):
    verifier: Verifier = field(default=Stalling(), init=False)

    def examples(self, split: str) -> Sequence[Example]:
        marks = {0: "some ", 1: "all "} if split == "train" else {0: "all "}
        return [
            replace(example, target=marks.get(number, "") + example.target)
            for number, example in enumerate(super().examples(split))
        ]


class StallingReward(Reward):
    def __call__(self, example, rollout):
        while example.target.startswith("reward ") and not rollout.verdict.correct:
            pass
        return float(rollout.verdict.correct)


@dataclass(frozen=True)
class StallingRewardTask(DrawTask):
    verifier: Verifier = field(default=Stalling(), init=False)

    def examples(self, split: str) -> Sequence[Example]:
        first, *others = super().examples(split)
        return [replace(first, target=f"reward {first.target}"), *others]
"""
SETTINGS = {
    "trainer.max_epochs": 1,
    "data.task": "stalling.StallingTask",
    "data.task.num_train": 16,
    "data.round.num_trained_rollouts": 4,
    "data.batch_size": 8,
    "data.verifier_timeout_seconds": 1,
}
DDP = {"trainer.devices": 2, "trainer.strategy": "ddp"}


def stalls(verified, target):
    """What the verifier does, found out without it."""
    text = strip_segment(verified.rollout.text, InlineConfidence().parse(verified.rollout.text))
    return target.startswith("all ") or (target.startswith("some ") and crc32(text.encode()) % 2 == 1)


@pytest.fixture(scope="module", params=["one_process", pytest.param("ddp", marks=pytest.mark.slow)])
def finished(request, fit_with_defaults, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "stalling.py").write_text(OWN)
    result = fit_with_defaults(directory, **SETTINGS, **(DDP if request.param == "ddp" else {}))
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Traceback" not in result.stderr
    return directory, result


def test_a_run_whose_verifier_does_not_return_ends_and_estimates_without_these_rollouts(finished):
    directory, _ = finished
    run = Run(directory)
    unjudged = 0
    for group in load_groups(run.directory / "rollouts" / "round_00000.jsonl"):
        target = group.example.target
        stalled = [stalls(verified, target) for verified in group.rollouts]
        judged = [
            ExactMatch().verify(verified.body, target.split()[-1]).correct
            for verified, is_stalled in zip(group.rollouts, stalled, strict=True)
            if not is_stalled
        ]
        assert [verified.verdict is None for verified in group.rollouts] == stalled
        expected = [None if each or not judged else fmean(judged) for each in stalled]
        assert list(group.mu_hats) == pytest.approx(expected)
        unjudged += sum(stalled)
    assert 4 < unjudged < 8  # all of one row, and some of another
    assert run.scalars("rollout/no_verdict") == [pytest.approx(unjudged / 64)]
    assert run.scalars("rollout/without_weight") == [pytest.approx(unjudged / 64)]
    assert len(run.scalars("train/loss")) == 8 // (2 if "ddp" in directory.name else 1)


def test_the_held_out_row_is_counted_and_in_no_metric(finished):
    directory, result = finished
    metrics = json.loads((Run(directory).directory / "metrics.json").read_text())
    for found in (moment[event] for moment in metrics.values() for event in ("greedy", "sampled")):
        assert (found["n"], found["n_no_verdict"]) == (23, 1)
        assert found["accuracy"] * 23 == pytest.approx(round(found["accuracy"] * 23))
    assert "n_no_verdict" in result.stderr
    assert "stalling.Stalling" in result.stderr
    assert "within 1 s" in result.stderr


def test_predictions_without_a_verdict_are_null_and_scored_as_such(finished, tmp_path, monkeypatch, capsys):
    directory, _ = finished
    if "ddp" in directory.name:
        pytest.skip("the weights are alike")
    monkeypatch.syspath_prepend(directory)
    settings = {
        "data.task": "stalling.StallingTask",
        "data.task.num_validation": 24,
        "data.task.num_test": 24,
        "data.verifier_timeout_seconds": 1,
        "predictions.output": tmp_path / "predictions.jsonl",
        "ckpt_path": Run(directory).checkpoint_file("round0"),
    }
    assert main(["predict", f"--config={QUICKSTART}", *options(settings)]) == 0
    file = tmp_path / "predictions.greedy.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["correct"] for row in rows].count(None) == 1
    assert (rows[0]["correct"], rows[0]["answer"]) == (None, None)
    for arguments in ([], ["--task=stalling.StallingTask", "--verifier_timeout_seconds=1"]):
        output = tmp_path / "scores.json"
        assert main(["score", str(file), f"--output={output}", "--resamples=0", *arguments]) == 0
        scores = json.loads(output.read_text())
        assert (scores["n"], scores["n_no_verdict"]) == (23, 1)
        assert scores["accuracy"]["value"] == pytest.approx(fmean(row["correct"] for row in rows[1:]))
        assert "without a verdict, and left out: 1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_reward_that_does_not_return_leaves_the_advantages(fit_with_defaults, tmp_path):
    (tmp_path / "stalling.py").write_text(OWN)
    (tmp_path / "rewards.yaml").write_text(
        "model: {method: {class_path: caopd.methods.GRPO, init_args: {rewards: [{class_path: "
        "stalling.StallingReward}]}}, loss: null, teacher: null}\n"
        "data: {task: {class_path: stalling.StallingRewardTask}}\n"
    )
    settings = {**SETTINGS, "data.task": None}
    result = fit_with_defaults(tmp_path, tmp_path / "rewards.yaml", **settings)
    assert result.returncode == 0, result.stderr[-4000:]
    run = Run(tmp_path)
    groups = load_groups(run.directory / "rollouts" / "round_00000.jsonl")
    means, unjudged = [], 0
    for group in groups:
        for verified in group.rollouts:
            target = group.example.target
            correct = ExactMatch().verify(verified.body, target.split()[-1]).correct
            stalled = target.startswith("reward ") and not correct
            assert (verified.verdict is None) == stalled
            assert verified.rewards == (None if stalled else {"StallingReward": float(correct)})
        earned = [verified.rewards["StallingReward"] for verified in group.judged.rollouts]
        if len(earned) >= 2:
            means.append(fmean(earned))
        unjudged += len(group.rollouts) - len(earned)
    assert unjudged > 0
    assert run.scalars("rollout/reward") == [pytest.approx(fmean(means))]
    assert "stalling.StallingReward" in result.stderr
