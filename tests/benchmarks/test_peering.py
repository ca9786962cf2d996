"""What the benchmark of the peers measures, and what its page and figure make of it."""

import json
from argparse import Namespace
from dataclasses import asdict, replace

import pytest

import fits
import peers
import peers_ours
from caopd.confidence import InlineConfidence
from caopd.methods import SDFT
from caopd.models import ModelSource
from caopd.prompts import teacher_messages
from caopd.rollouts import RolloutRequest, Sampling
from caopd.rounds.encoding import encode_prompts
from caopd.types import Example
from peering.clock import StepClock
from peering.environment import trl_python
from peering.figure import PANELS, TRAINERS, cost_figure
from peering.page import REASONS, page
from peering.results import OURS, costs_of, fastest_peer, missed, per_token, shares, unequal_lengths
from peering.stated import StatedEngine
from peering.works import BRIEFLY, WORKS, digit_examples, missing, prompt_of

STEP = {"generation": 10.0, "training": 20.0, "whole": 32.0}


def run(work, trainer, repeat=0, peak_mib=1000.0, trained_tokens=(100,), **step):
    return {
        "name": f"{work}-{trainer}-{repeat}",
        "work": work,
        "trainer": trainer,
        "repeat": repeat,
        "steps": [{**STEP, **step}],
        "peak_mib": peak_mib,
        "completion_lengths": [48],
        "versions": {"torch": "2.13.0", "trl": "1.16.0"},
        "trained_tokens": list(trained_tokens),
    }


def record(*runs, **more):
    lengths = {work: [{"student": 58, "teacher": 105}] * 4 for work in WORKS}
    versions = {"torch": "2.13.0", "caopd": "0.1.0"}
    machine = {"cpus": 2, "processes": 1, "timestamp": "2026-11-27T00:00:00+00:00", "versions": versions}
    settings = {"steps": 2, "repeats": 3, "device": "cpu", "rollouts": "transformers"}
    rest = {"missing": [], "failures": [], "skipped": {}, **more}
    return {"environment": machine, "settings": settings, "prompts": lengths, "runs": list(runs), **rest}


class Scripted(StepClock):
    """A clock that is told the time."""

    def __init__(self):
        super().__init__("cpu")
        self.time = 0.0

    def now(self):
        return self.time


def pass_step(clock, before, generation, training, within=0.0):
    clock.time += before
    clock.start_generation()
    clock.time += generation
    clock.stop_generation()
    clock.begin()
    clock.time += training / 2
    clock.start_generation()
    clock.time += within
    clock.stop_generation()
    clock.begin()  # of a further micro-batch
    clock.time += training / 2
    clock.end()


def test_a_step_is_its_parts_and_what_lies_between_and_the_first_is_not_counted(tmp_path):
    clock = Scripted()
    pass_step(clock, before=99.0, generation=99.0, training=99.0)
    pass_step(clock, before=1.0, generation=2.0, training=4.0)
    pass_step(clock, before=1.0, generation=0.0, training=4.0, within=8.0)
    clock.stop_generation()  # without effect
    clock.write(tmp_path / "run" / "cost.json", more=1)
    found = json.loads((tmp_path / "run" / "cost.json").read_text())
    assert found["steps"] == [
        {"generation": 2.0, "training": 4.0, "whole": 7.0},
        {"generation": 8.0, "training": 4.0, "whole": 13.0},
    ]
    assert found["more"] == 1
    assert found["peak_mib"] > 50
    assert "torch" in found["versions"]


def test_costs_are_medians_and_peers_are_the_smallest_of_every_part():
    some = record(
        run("short", "trl-sdft", 0, training=10.0, peak_mib=3000.0),
        run("short", "trl-sdft", 1, training=30.0, peak_mib=3000.0),
        run("short", "trl-sdft", 2, training=12.0, peak_mib=9000.0),
        run("short", "trl-sdpo", training=11.0, whole=40.0, peak_mib=2000.0),
        run("short", "sdft", training=5.5),
        run("tools", "trl-sdft", training=1.0),
    )
    assert costs_of(some, "short", "trl-sdft") == {**STEP, "training": 12.0, "peak_mib": 3000.0}
    assert costs_of(some, "tools", "sdft") is None
    peer = fastest_peer(some, "short")
    assert peer == {**STEP, "training": 11.0, "peak_mib": 2000.0}
    found = shares(costs_of(some, "short", "sdft"), peer)
    assert found == {"generation": 1.0, "training": 0.5, "whole": 1.0, "peak_mib": 0.5}
    assert missed(found, {"training": 0.5, "whole": 0.9, "peak_mib": 0.4}) == ["whole", "peak_mib"]
    assert fastest_peer(record(run("short", "sdft")), "short") is None


def test_training_by_token_leaves_out_that_one_trains_on_more_tokens():
    some = record(run("short", "caopd", training=22.0, trained_tokens=[110]), run("short", "sdft"))
    assert per_token(some, "short", "caopd") == pytest.approx(0.2) == per_token(some, "short", "sdft")
    assert per_token(some, "short", "sdpo") is None


def test_the_page_shows_targets_what_is_missed_and_what_caopd_costs():
    text = page(
        record(
            run("short", "trl-sdft"),
            run("short", "sdft", training=12.0, whole=30.0, peak_mib=500.0),
            run("short", "sdft-stated", training=10.0),
            run("short", "caopd-stated", training=10.4),
            skipped={"tools": "there is no data"},
            missing=["short-sdpo-0"],
            failures=["short-caopd-0 ended with status 1"],
        )
    )
    assert "| `short` | SDFT | 1.00 | 0.60 (0.65) | **0.94** (0.75) | 0.50 (0.85) |" in text
    assert f"- whole step: {REASONS['whole']}" in text
    assert REASONS["training"] not in text
    assert "| `short` | all | 1.040 | 1.000 | 1.040 |" in text
    assert "- `tools` was left out: there is no data." in text
    assert "- short-sdpo-0 has not been run." in text
    assert "- short-caopd-0 ended with status 1" in text
    assert "trl 1.16.0" in text


def test_a_page_without_peers_says_so():
    assert "No work has been done by both sides." in page(record(run("short", "sdft")))


def test_runs_of_unequal_work_are_named():
    shorter = {**run("short", "trl-sdpo"), "completion_lengths": [3, 48]}
    appended = {**run("short", "caopd"), "completion_lengths": [57]}
    assert unequal_lengths([run("short", "sdft"), shorter, appended]) == ["short-trl-sdpo-0"]
    assert "- short-trl-sdpo-0: completions differ in length." in page(record(shorter))


def test_the_figure_has_a_bar_for_every_trainer_and_work():
    works = ("short", "vocabulary")
    figure = cost_figure(record(*(run(work, trainer) for work in works for trainer in TRAINERS)))
    assert [len(axes.patches) for axes in figure.axes] == [len(works) * len(TRAINERS)] * len(PANELS)


def asked(tmp_path, **more):
    for work in WORKS:
        (tmp_path / "works").mkdir(exist_ok=True)
        (tmp_path / "works" / f"{work}.json").write_text("{}")
    options = {"steps": 2, "repeats": 2, "device": "cpu", "rollouts": "transformers", "trl": "python-of-trl"}
    return Namespace(directory=tmp_path, **{**options, **more})


def test_trainers_take_turns(tmp_path):
    made = peers.cells(["short", "vocabulary"], asked(tmp_path))
    names = [each.run.name for each in made]
    assert len(set(names)) == len(names) == 2 * (8 + 6)
    assert names[:4] == ["short-trl-sdft-0", "short-trl-sdpo-0", "short-trl-distillation-0", "short-sdft-0"]
    assert [each.repeat for each in made] == [0] * 14 + [1] * 14


def test_the_package_is_part_of_our_runs_and_not_of_the_peers(tmp_path, monkeypatch):
    made = peers.cells(["short"], asked(tmp_path))
    before = [each.run.fingerprint for each in made]
    monkeypatch.setattr(fits, "package_hash", lambda: "that of another package")
    after = [each.run.fingerprint for each in made]
    changed = {each.trainer for each, a, b in zip(made, after, before, strict=True) if a != b}
    assert changed == {each.trainer for each in made if each.side == "ours"} == {*OURS}
    assert {each.run.python for each in made if each.side == "peers"} == {"python-of-trl"}


def test_another_work_and_other_settings_are_other_runs(tmp_path):
    options = asked(tmp_path)
    fingerprints = {peers.run_of("short", "trl-sdft", 0, options).fingerprint}
    options.steps = 3
    fingerprints.add(peers.run_of("short", "trl-sdft", 0, options).fingerprint)
    (tmp_path / "works" / "short.json").write_text('{"other": 1}')
    fingerprints.add(peers.run_of("short", "trl-sdft", 0, options).fingerprint)
    assert len(fingerprints) == 3


def test_a_work_without_its_data_says_why_it_is_left_out(tmp_path):
    assert missing(WORKS["short"], None) is None
    assert "none was named" in missing(WORKS["science"], None)
    assert "does not hold" in missing(WORKS["tools"], tmp_path)


def test_an_environment_that_has_been_made_is_taken_as_it_is(tmp_path):
    (tmp_path / "trl-is-installed").touch()
    assert trl_python(tmp_path, tmp_path / "constraints.txt") == tmp_path / "bin" / "python"


def test_both_sides_are_given_the_same_prompts():
    tokenizer = ModelSource().load_tokenizer()
    work = replace(WORKS["short"], prompt_length=100)
    examples = digit_examples(work, tokenizer)
    assert len({example.question for example in examples}) == work.num_prompts
    for example in examples:
        prompt = prompt_of(example, tokenizer)
        assert prompt["num_tokens"]["student"] == work.prompt_length
        (*_, asked_of_teacher) = teacher_messages(example, SDFT().known_context(example), BRIEFLY)
        assert f"{prompt['messages'][-1]['content']}\n\n{prompt['shown']}" == asked_of_teacher["content"]
        assert len(encode_prompts(tokenizer, [prompt["messages"]], {})[0]) == work.prompt_length


def test_stated_completions_are_equally_long_and_all_are_read():
    tokenizer = ModelSource().load_tokenizer()
    engine = StatedEngine(20, InlineConfidence())
    engine.start(tokenizer)
    engine.sync(None, 3)
    prompt = tuple(tokenizer("Which digit?", add_special_tokens=False)["input_ids"])
    (group,) = engine.generate([RolloutRequest(prompt, 0)], 4, Sampling(max_new_tokens=20))
    assert {len(rollout.token_ids) for rollout in group} == {20}
    assert {InlineConfidence().parse(rollout.text).value for rollout in group} == {0.85}
    assert len({rollout.text for rollout in group}) == 4


@pytest.fixture
def small_work(tmp_path):
    """Two prompts of the embedded model's task."""
    ModelSource().load_model(tokenizer := ModelSource().load_tokenizer()).hf.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    examples = [Example(str(n), f"Which digit is {n}?", "1", None, "1") for n in range(2)]
    prompts = [{"example": asdict(example)} for example in examples]
    content = {"model": "model", "num_rollouts": 2, "new_tokens": 12, "batch_size": 2, "prompts": prompts}
    (tmp_path / "work.json").write_text(json.dumps(content))
    return tmp_path / "work.json"


@pytest.mark.parametrize("trainer", ["sdpo", "caopd-stated"])
def test_a_run_of_ours_measures_its_steps(trainer, small_work, tmp_path):
    peers_ours.main([str(small_work), trainer, str(tmp_path / "run"), "--steps=3"])
    found = json.loads((tmp_path / "run" / "cost.json").read_text())
    assert len(found["steps"]) == len(found["trained_tokens"]) == 2
    for step in found["steps"]:
        assert 0 < step["generation"] + step["training"] <= step["whole"]
    if trainer == "caopd-stated":
        assert found["completion_lengths"] == [12]
        assert found["trained_tokens"] == [2 * 2 * 12] * 2
