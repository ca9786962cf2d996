"""``caopd fit --dry_run``: what is trained on, without weights."""

import json
import re

import pytest
from rich.console import Console

from caopd.cli import main
from caopd.losses import DistillationLoss
from caopd.models import ModelSource
from caopd.rounds.filling import TokenizedSample
from caopd.rounds.splice import Completion
from caopd.training.shown_sample import kinds_of, show_sample

SMALL = ("--data.task.num_train=64", "--data.task.num_validation=8", "--data.round.num_prompts_per_round=32")


@pytest.fixture
def dry_run(capsys, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(ModelSource, "load_model", refuse)

    def run(*arguments):
        status = main(["fit", "--config=quickstart", *SMALL, *arguments, "--dry_run"])
        return status, capsys.readouterr()

    return run


def ids_after(text, name):
    """The ids that follow a name at the head of a line."""
    found = re.search(rf"^{name}: ([\d ]+)$", text, re.MULTILINE)
    return [] if found is None else list(map(int, found[1].split()))


def test_prompts_completion_and_steps(dry_run, tokenizer):
    status, told = dry_run()
    assert status == 0
    assert "64 training rows and 8 for validation can be used" in told.out
    assert "Student's prompt (11 tokens)" in told.out
    assert told.out.count("The empirical confidence for this question is 0.67") == 1, "in the teacher's prompt alone"
    answer = re.search(r"answer '(\d)'", told.out)[1]
    assert tokenizer.decode(ids_after(told.out, "body")) == answer
    assert tokenizer.decode(ids_after(told.out, "confidence")) == "\nConfidence: 0.67<|end|>", "revised from 0.90"
    assert "100 rounds of 32 prompts x 8 rollouts, 32 training samples" in told.out
    assert "1 optimizer steps a round, 100 in all; each takes 32 samples" in told.out
    assert "all 198,656 weights of embedded" in told.out


def test_a_run_leaves_nothing(dry_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dry_run()[0] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model.method=SDFT",), "Confidence: 1.00\n"),
        (("--model.method=SDPO",), "Correct solution:"),
        (("--model.method=SFT",), "the completion is the demonstration of the data"),
        (("--model.method=GRPO", "--data.round.num_trained_rollouts=null"), "Teacher's prompt: the same"),
    ],
)
@pytest.mark.filterwarnings("ignore:`model.loss` is DistillationLoss")
def test_every_kind_of_method(dry_run, arguments, said):
    status, told = dry_run(*arguments)
    assert status == 0
    assert said in told.out


def test_a_config_for_gpus_needs_none(dry_run):
    devices = ("--trainer.accelerator=gpu", "--trainer.devices=4", "--trainer.precision=bf16-mixed")
    status, told = dry_run(*devices, "--data.batch_size=8", "--data.engine=AutoEngine")
    assert status == 0
    assert "batch_size 8 x accumulate_grad_batches 1 x 4 processes" in told.out


def test_adapters_are_counted(dry_run):
    """Of 2 layers with 7 matrices each: rank x (inputs + outputs)."""
    status, told = dry_run("--model.source.lora.rank=4")
    assert status == 0
    assert "weights of low-rank adapters (rank 4), float32, beside 198,656 frozen ones" in told.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data.batch_size=7",), "be a multiple of batch_size x processes"),
        (("--data.sampling.max_new_tokens=600",), "the model takes 512"),
        (("--data.round.num_prompts_per_round=128",), "at least `num_prompts_per_round` = 128"),
        (("--data.round.num_rollouts=1", "--model.method=SDPO"), "at least 2 for SDPO"),
    ],
)
def test_what_a_fit_would_refuse(dry_run, arguments, said):
    status, told = dry_run(*arguments)
    assert status == 2
    assert said in told.err


@pytest.mark.parametrize(("demonstration", "warned"), [("<answer>A</answer>", True), ("<answer>B</answer>", False)])
def test_a_demonstration_that_the_verifier_refuses(demonstration, warned, tmp_path, capsys):
    rows = [{"id": str(n), "prompt": f"Q{n}", "answer": "B", "demonstration": demonstration} for n in range(8)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    splits = json.dumps(dict.fromkeys(("train", "validation", "test"), str(file)))
    task = ("--data.task=ScienceQA", f"--data.task.source.files={splits}", "--data.sampling.max_new_tokens=32")
    sizes = ("--data.round.num_prompts_per_round=8", "--data.batch_size=8")
    assert main(["fit", "--config=quickstart", *task, *sizes, "--dry_run"]) == 0
    assert ("warning: a completion that says what the demonstration says" in capsys.readouterr().out) == warned


def test_colours_and_words_say_the_same(tokenizer):
    ids = tuple(tokenizer("3\nConfidence: 0.50<|end|>")["input_ids"])
    assert len(ids) == 4
    completion = Completion(ids, (False, True, True, True), (None,) * 4)
    sample = TokenizedSample((4, 7), (4, 7, 10), completion, (0.0, 1.0, 1.0, 1.0), copies_context=True)
    loss = DistillationLoss(skip_first_tokens=2)
    assert kinds_of(sample, loss) == ["not in the loss", "not in the loss", "confidence", "confidence"]
    console = Console(force_terminal=True, color_system="standard", width=200, record=True)
    with console.capture() as captured:
        show_sample(sample, loss, tokenizer, console)
    text = captured.get()
    assert f"\x1b[1;35mconfidence: {ids[2]} {ids[3]}\x1b[0m" in text
    assert f"\x1b[90mnot in the loss: {ids[0]} {ids[1]}\x1b[0m" in text
    assert "\x1b[1;35m0.50<|end|>\x1b[0m" in text
