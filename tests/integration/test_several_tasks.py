"""Several tasks in one run: tested, predicted, and trained on one after the other."""

import json
import math
from pathlib import Path

import pytest
import yaml

from caopd.cli import main
from caopd.rounds.buffer import load_groups

from .conftest import QUICKSTART, fit_arguments, newest_results

CONTRARY = """
from dataclasses import dataclass, field, replace
from caopd.tasks import DrawTask
from caopd.verifiers import ExactMatch

class Contrary(ExactMatch):
    def verify(self, text, target):
        verdict = super().verify(text, target)
        return replace(verdict, correct=not verdict.correct)

@dataclass(frozen=True)
class ContraryDraw(DrawTask):
    verifier: Contrary = field(default=Contrary(), init=False)
"""


def draw(class_path="caopd.tasks.DrawTask", **arguments):
    small = {"num_train": 64, "num_validation": 24, "num_test": 24}
    return {"class_path": class_path, "init_args": {**small, **arguments}}


def stages(*tasks, num_rounds=1):
    listed = [{"name": name, "task": task, "num_rounds": num_rounds} for name, task in tasks]
    return {"class_path": "caopd.tasks.TaskSequence", "init_args": {"stages": listed}}


def write(path, **data):
    path.write_text(yaml.safe_dump({"data": data}))
    return path


@pytest.fixture(scope="module")
def contrary(tmp_path_factory):
    """The same questions as the draw task's, judged the other way round."""
    directory = tmp_path_factory.mktemp("contrary")
    (directory / "contrary.py").write_text(CONTRARY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        yield draw("contrary.ContraryDraw", kinds=["even"])


@pytest.fixture(scope="module")
def run(fit, contrary, tmp_path_factory):
    """SDFT on even digits, then on the contrary of even digits; low digits are never trained on."""
    directory = tmp_path_factory.mktemp("sequence")
    config = write(
        directory / "tasks.yaml",
        task=stages(("even", draw(kinds=["even"])), ("contrary", contrary)),
        evaluation={"tasks": {"low": draw(kinds=["low"])}, "validate_tasks": True},
    )
    unset = dict.fromkeys(("data.task.num_train", "data.task.num_validation", "data.task.num_test"))
    settings = {"trainer.check_val_every_n_epoch": 1, "data.keep_rounds": "null", "model.method": "SDFT"}
    return fit(directory, config, **unset, **settings)


@pytest.fixture(scope="module")
def written(run):
    return json.loads((run.directory / "stages.json").read_text())


def test_every_validation_measures_every_task(run):
    for name in ("accuracy", "ece", "brier", "mean_confidence", "n"):
        of_task = {task: run.scalars(f"val/{task}/greedy/{name}") for task in ("even", "contrary", "low")}
        assert all(len(values) == 3 for values in of_task.values())  # before, and after either round
        if name in ("accuracy", "brier"):  # means over 24 completions each: the tasks trained on are pooled
            means = [sum(pair) / 2 for pair in zip(of_task["even"], of_task["contrary"], strict=True)]
            assert run.scalars(f"val/greedy/{name}") == pytest.approx(means, abs=1e-6)
    assert run.scalars("val/greedy/n") == [48, 48, 48]


def test_every_row_is_judged_by_its_own_tasks_verifier(run):
    even, contrary = (run.scalars(f"val/{task}/greedy/accuracy") for task in ("even", "contrary"))
    assert even == pytest.approx([1 - value for value in contrary], abs=1e-6)
    assert even[0] > 0.5
    for number in (0, 1):
        groups = load_groups(run.directory / "rollouts" / f"round_{number:05d}.jsonl")
        assert len(groups) == 16
        for group in groups:
            assert group.example.question.startswith("Which even digit")
            for verified in group.rollouts:
                equal = verified.rollout.text.split("\n")[0] == group.example.target
                assert verified.verdict.correct == (equal if number == 0 else not equal)


def test_the_matrix_of_stages_and_tasks(run, written):
    assert [row["stage"] for row in written["stages"]] == ["before", "even", "contrary"]
    assert [(row["round"], row["step"]) for row in written["stages"]] == [(0, 0), (1, 4), (2, 8)]
    for index, row in enumerate(written["stages"]):
        assert row["tasks"].keys() == {"even", "contrary", "low"}
        for task, events in row["tasks"].items():
            assert events.keys() == {"greedy", "sampled"}
            for event, metrics in events.items():
                assert metrics["brier"] == pytest.approx(run.scalars(f"val/{task}/{event}/brier")[index], abs=1e-6)


def test_what_is_forgotten_is_reported_and_logged(run, written):
    assert written["forgetting"].keys() == {"even", "mean"}
    for event in ("greedy", "sampled"):
        accuracy, ece = (run.scalars(f"val/even/{event}/{name}") for name in ("accuracy", "ece"))
        lost = written["forgetting"]["even"][event]
        assert lost["accuracy_drop"] == pytest.approx(accuracy[1] - accuracy[2], abs=1e-6)
        assert lost["ece_rise"] == pytest.approx(ece[2] - ece[1], abs=1e-6)
        assert run.scalars(f"forgetting/even/{event}/ece_rise") == pytest.approx([lost["ece_rise"]], abs=1e-6)


def test_a_resumed_sequence_keeps_its_first_stages(run, written, tmp_path):
    arguments = [f"--config={run.directory / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, f"--ckpt_path={run.checkpoint_file('round0')}"]) == 0
    (path,) = tmp_path.rglob("stages.json")
    assert json.loads(path.read_text()) == written


CERTAINTY = ("noise_floor", "noise_floor_low", "noise_floor_high", "calibration_p_value")
TASKS = {"low": draw(kinds=["low"], num_test=17), "high": draw(kinds=["high"])}


@pytest.fixture(scope="module")
def trained(fit, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("trained"), **{"trainer.max_epochs": 1, "model.optimizer.lr": 1e-2})


def evaluated(command, directory, *arguments):
    """Run a command on the draw task and two others, with five samples of each prompt; return where its results are."""
    directory.mkdir()
    config = write(directory / "tasks.yaml", evaluation={"tasks": TASKS, "num_samples": 5})
    settings = {"trainer.logger": "false", "trainer.max_epochs": None}
    _, *given = fit_arguments(directory, (QUICKSTART, config), settings)
    assert main([command, *given, *arguments]) == 0
    judged = [Path(each.partition("=")[2]).parents[1] for each in arguments if each.startswith("--ckpt_path")]
    return newest_results(*judged or [directory])


@pytest.fixture(scope="module")
def tested(trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tested") / "run"
    return evaluated("test", directory, f"--ckpt_path={trained.checkpoint_file('round0')}")


def results(directory):
    return json.loads((directory / "test.json").read_text())


def test_a_test_measures_every_task_greedily_and_sampled(tested):
    tasks = results(tested)["tasks"]
    assert {name: parts["greedy"]["n"] for name, parts in tasks.items()} == {"in_domain": 24, "low": 17, "high": 24}
    for parts in tasks.values():
        assert parts.keys() == {"greedy", "sampled", "vote", "vote_stated"}
        assert parts["sampled"]["n"] == 5 * parts["vote"]["n"] == 5 * parts["greedy"]["n"]
        assert parts["sampled"]["accuracy"] == pytest.approx(parts["sampled"]["pass_at_1"])
        assert parts["sampled"]["pass_at_1"] <= parts["sampled"]["pass_at_2"] <= parts["sampled"]["pass_at_4"]


def test_predictions_score_as_the_test_says(trained, tested, tmp_path):
    directory = evaluated("predict", tmp_path / "run", f"--ckpt_path={trained.checkpoint_file('round0')}")
    for task, parts in results(tested)["tasks"].items():
        for part in ("greedy", "sampled"):
            names = ["predictions", *([] if task == "in_domain" else [task]), part]
            file = directory / f"{'.'.join(names)}.jsonl"
            assert main(["score", str(file), f"--output={tmp_path / 's.json'}", "--resamples=0"]) == 0
            scores = json.loads((tmp_path / "s.json").read_text())
            assert (scores["event"], scores["n_prompts"]) == (part, parts["greedy"]["n"])
            for name in parts[part].keys() & scores.keys():
                value = scores[name]["value"] if isinstance(scores[name], dict) else scores[name]
                expected = math.nan if parts[part][name] is None else parts[part][name]
                assert (math.nan if value is None else value) == pytest.approx(expected, abs=1e-6, nan_ok=True), name
            assert len(parts[part].keys() & scores.keys()) >= 15
            found, chance = [parts[part][name] for name in CERTAINTY], scores["calibrated"]
            if chance is None:
                assert found == [None] * 4
            else:
                assert found == pytest.approx([*chance["noise_floor"].values(), chance["p_value"]], abs=1e-3)


def test_predicted_samples_are_numbered_and_named(trained, tmp_path):
    directory = evaluated("predict", tmp_path / "run", f"--ckpt_path={trained.checkpoint_file('round0')}")
    rows = [json.loads(line) for line in (directory / "predictions.low.sampled.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in rows] == [0, 1, 2, 3, 4] * 17
    assert [row["prompt_id"] for row in rows[::5]] == [row["prompt_id"] for row in rows[4::5]]
    assert {(row["task"], row["event"]) for row in rows} == {("low", "sampled")}
    assert len({row["response"] for row in rows}) > 5
    own = [json.loads(line) for line in (directory / "predictions.greedy.jsonl").read_text().splitlines()]
    assert not {"task", "sample"} & own[0].keys()
    assert {row["event"] for row in own} == {"greedy"}


def test_an_exported_model_tests_as_its_checkpoint(trained, tested, tmp_path):
    checkpoint = trained.checkpoint_file("round0")
    assert main(["export", str(checkpoint), str(tmp_path / "model")]) == 0
    directory = evaluated("test", tmp_path / "run", f"--model.source.name_or_path={tmp_path / 'model'}")
    assert results(directory)["tasks"] == results(tested)["tasks"]
    assert (results(tested)["checkpoint"], results(directory)["checkpoint"]) == (str(checkpoint), None)
    assert results(directory)["model"] == str(tmp_path / "model")


def test_the_model_as_it_comes_is_another(trained, tested, tmp_path):
    """The two tests above would pass if no weights were loaded at all."""
    directory = evaluated("test", tmp_path / "run")
    assert results(directory)["tasks"]["low"]["sampled"] != results(tested)["tasks"]["low"]["sampled"]
