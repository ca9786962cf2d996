"""What a run leaves behind: TensorBoard, metrics.json, rollouts, predictions."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
import yaml
from rich.console import Console

from caopd.cli import main
from caopd.confidence import InlineConfidence
from caopd.rounds.buffer import load_groups
from caopd.training.callbacks import BeforeAfterMetrics, reliability

from .conftest import QUICKSTART, fit_arguments

METRICS = ("accuracy", "ece", "brier", "ocg", "spr", "auroc", "mean_confidence", "format_adherence", "n")
SCALARS = (
    "train/loss",
    "train/kl_body",
    "train/kl_confidence",
    "train/student_entropy",
    "train/teacher_entropy",
    "train/information_gap",
    "train/teacher_log_ratio",
    "train/teacher_copy_accuracy",
    "rollout/mu_hat",
    "rollout/stated_optimism",
    "rollout/accuracy",
    "rollout/format_adherence",
    "rollout/without_weight",
    "rollout/confidence_alone",
    "time/sync_seconds",
    "time/rollout_seconds",
    "time/verify_seconds",
    "time/train_seconds",
    "time/rollout_tokens_per_second",
    *(f"val/{event}/{name}" for event in ("greedy", "sampled") for name in METRICS),
)


@pytest.fixture(scope="module")
def run(fit, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("run"), **{"trainer.check_val_every_n_epoch": 1, "data.keep_rounds": "null"})


@pytest.fixture(scope="module")
def report(run):
    return json.loads((run.directory / "metrics.json").read_text())


def test_tensorboard_has_every_scalar_once_a_round(run):
    tags = run.events.Tags()
    assert set(SCALARS) <= set(tags["scalars"])
    assert "val/step" not in tags["scalars"]
    for tag in SCALARS:
        per_round = {"train/loss": 8, "val": 3}.get(tag.partition("/")[0] if tag.startswith("val") else tag, 2)
        assert len(run.scalars(tag)) == per_round, tag


def test_tensorboard_has_a_diagram_and_a_table_of_every_validation(run):
    events = run.events
    for event in ("greedy", "sampled"):
        assert len(events.Images(f"val/{event}/reliability")) == 3
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("val/completions/text_summary")]
    assert len(texts) == 3
    assert "| question | event | completion | target | correct | confidence |" in texts[0]
    assert texts[0].count("digit was drawn from") == 16
    assert texts[0].count("| greedy |") == texts[0].count("| sampled |") == 8


def test_metrics_before_and_after(report, run):
    for index, moment, step in ((0, "initial", 0), (-1, "final", 8)):
        assert report[moment].keys() == {"step", "greedy", "sampled"}
        assert report[moment]["step"] == step
        for event in ("greedy", "sampled"):
            assert set(METRICS) <= set(report[moment][event])
            assert report[moment][event]["n"] == 24
            logged = run.scalars(f"val/{event}/brier")[index]
            assert report[moment][event]["brier"] == pytest.approx(logged, abs=1e-6)
    assert report["final"]["greedy"] != report["final"]["sampled"]


def test_the_ece_has_its_interval_and_what_a_calibrated_model_would_show(report, run):
    for moment in ("initial", "final"):
        for event in ("greedy", "sampled"):
            values = report[moment][event]
            assert 0 <= values["ece_low"] <= values["ece_high"] <= 1
            assert 0 <= values["noise_floor_low"] <= values["noise_floor"] <= values["noise_floor_high"]
            assert (values["ece_low"] > 0) == (values["calibration_p_value"] < 0.05)
            logged = run.scalars(f"val/{event}/ece_high")[0 if moment == "initial" else -1]
            assert logged == pytest.approx(values["ece_high"], abs=1e-6)


def test_the_table_shows_them(report, run, capsys):
    callback = BeforeAfterMetrics()
    callback.load_state_dict(report)
    Console(width=80).print(callback.table())
    shown = capsys.readouterr().out
    for event in ("greedy", "sampled"):
        first, last = report["initial"][event], report["final"][event]
        for name in ("ece", "noise_floor"):
            cells = "".join(
                rf" *│ +\[{each[f'{name}_low']:.3f}, {each[f'{name}_high']:.3f}\] " for each in (first, last)
            )
            assert re.search(rf"│ {event}/{name} .*\n│{cells}", shown), (event, name)
        assert f"{first['calibration_p_value']:.3g} │" in shown


def test_diagrams_say_how_certain_the_ece_is(run, report, tmp_path, monkeypatch):
    headings = {}

    def keep(trainer, directory, name, plot):
        headings[name] = plot().get_suptitle()

    monkeypatch.setattr(reliability, "log_figure", keep)
    assert evaluate("validate", run, tmp_path) == 0
    for event in ("greedy", "sampled"):
        values = report["final"][event]
        heading = headings[f"{event}/reliability"]
        assert f"true ECE {values['ece_low']:.3f} to {values['ece_high']:.3f}" in heading
        assert f"if calibrated {values['noise_floor']:.3f}, p = {values['calibration_p_value']:.2g}" in heading


def test_no_number_of_a_validation_is_without_its_event(run):
    """What is logged of held-out prompts is ``val/EVENT/...`` alone."""
    logged = [tag for tag in run.events.Tags()["scalars"] if tag.startswith(("val/", "test/"))]
    assert {tag.split("/")[1] for tag in logged} == {"greedy", "sampled"}


def test_rollouts_on_disk_are_what_was_trained_on(run):
    for number in (0, 1):
        groups = load_groups(run.directory / "rollouts" / f"round_{number:05d}.jsonl")
        assert len(groups) == 16
        rollouts = [verified for group in groups for verified in group.rollouts]
        assert len(rollouts) == 64
        assert {verified.rollout.policy_version for verified in rollouts} == {4 * number}
        for group in groups:
            correct = [v.rollout.text.split("\n")[0] == group.example.target for v in group.rollouts]
            assert [verified.verdict.correct for verified in group.rollouts] == correct
            assert group.mu_hats[0] == sum(correct) / 4
        mean = sum(group.mu_hats[0] for group in groups) / 16
        assert run.scalars("rollout/mu_hat")[number] == pytest.approx(mean, abs=1e-6)


def evaluate(command, run, tmp_path, **settings):
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    checkpoint = run.checkpoint_file("round1")
    return main(
        [
            command,
            f"--config={run.directory / 'config.yaml'}",
            f"--ckpt_path={checkpoint}",
            f"--trainer.default_root_dir={tmp_path}",
            "--trainer.logger=false",
            *arguments,
        ]
    )


def test_validate_gives_the_last_validation_again(run, report, tmp_path, capsys):
    assert evaluate("validate", run, tmp_path) == 0
    output = capsys.readouterr().out
    path = run.directory / "step_000008" / "validate.json"
    assert f"metrics: {path}\n" in output
    record = json.loads(path.read_text())
    assert (record["checkpoint"], record["step"]) == (str(run.checkpoint_file("round1")), 8)
    assert record["tasks"] == {"in_domain": {event: report["final"][event] for event in ("greedy", "sampled")}}
    assert len(re.findall("brier ", output)) == 2  # the table takes the place of Lightning's


def test_test_uses_the_test_split(run, tmp_path, capsys):
    assert evaluate("test", run, tmp_path) == 0
    output = capsys.readouterr().out
    record = json.loads((run.directory / "step_000008" / "test.json").read_text())
    assert (record["checkpoint"], record["step"]) == (str(run.checkpoint_file("round1")), 8)
    assert record["tasks"].keys() == {"in_domain"}
    assert not re.findall(r"│ brier", output)
    for event in ("greedy", "sampled"):
        (printed,) = re.findall(rf"│ {event}/brier .*?([0-9.]+)", output)
        assert float(printed) == pytest.approx(record["tasks"]["in_domain"][event]["brier"], abs=6e-4)


def test_predictions_agree_with_their_responses(run, tmp_path):
    assert evaluate("predict", run, tmp_path, **{"predictions.output": tmp_path / "p.jsonl"}) == 0
    rows = [json.loads(line) for line in (tmp_path / "p.greedy.jsonl").read_text().splitlines()]
    assert len({row["prompt_id"] for row in rows}) == len(rows) == 24
    for row in rows:
        reading = InlineConfidence().parse(row["response"])
        assert row["confidence"] == reading.value
        assert row["correct"] == int(row["response"].split("\n")[0] == row["target"])
        assert row["category"].startswith("e=")
        assert row["question"].startswith("Which ")


def test_predictions_score_as_they_are_and_as_their_task_verifies_them(run, tmp_path):
    assert evaluate("predict", run, tmp_path, **{"predictions.output": tmp_path / "p.jsonl"}) == 0
    rows = [json.loads(line) for line in (tmp_path / "p.greedy.jsonl").read_text().splitlines()]
    found = []
    for task in ([], ["--task=draw"]):
        assert main(["score", str(tmp_path / "p.greedy.jsonl"), f"--output={tmp_path / 's.json'}", *task]) == 0
        found.append(json.loads((tmp_path / "s.json").read_text()))
    as_stated, verified = found
    assert as_stated["n"] == as_stated["n_prompts"] == as_stated["answer_parse_rate"]["n"] == 24
    assert as_stated["accuracy"]["value"] == pytest.approx(sum(row["correct"] for row in rows) / 24, abs=1e-12)
    assert set(as_stated["categories"]) == {row["category"] for row in rows}
    assert {**as_stated, "task": "draw"} == verified


def test_a_second_run_in_the_same_directory_stands_beside_the_first(run, fit):
    root = run.directory.parents[1]
    before = (run.directory / "metrics.json").read_bytes()
    assert main(["fit", f"--config={run.directory / 'config.yaml'}", "--trainer.max_epochs=1"]) == 0
    assert len(list(root.rglob("metrics.json"))) == 2
    assert (run.directory / "metrics.json").read_bytes() == before


def test_without_a_logger_a_second_run_stands_beside_the_first_too(tmp_path):
    settings = {"trainer.logger": "false", "trainer.max_epochs": 1}
    for seed in (3, 4):
        assert main(fit_arguments(tmp_path, (QUICKSTART,), {**settings, "data.seed": seed})) == 0
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    own = ("config.yaml", "metrics.json", "checkpoints/round0.ckpt", "rollouts/round_00000.jsonl")
    assert files == {f"lightning_logs/CaOPD-SDFT-DrawTask-seed{seed}/{name}" for seed in (3, 4) for name in own}
    for seed in (3, 4):
        config = (tmp_path / "lightning_logs" / f"CaOPD-SDFT-DrawTask-seed{seed}" / "config.yaml").read_text()
        assert yaml.safe_load(config)["data"]["seed"] == seed


def test_a_progress_bar_of_ones_own_is_kept(tmp_path, capsys):
    config = tmp_path / "bar.yaml"
    config.write_text("trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.TQDMProgressBar}]}")
    settings = {"trainer.enable_progress_bar": "true", "trainer.max_epochs": 1}
    assert main(fit_arguments(tmp_path, (QUICKSTART, config), settings)) == 0
    assert "Epoch 0" in capsys.readouterr().out


@pytest.fixture(scope="module")
def in_terminal(tmp_path_factory):
    """What a terminal is shown of a fit that validates every round."""
    terminal, process_end = pty.openpty()
    fcntl.ioctl(process_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    settings = {"trainer.enable_progress_bar": "true", "trainer.check_val_every_n_epoch": 1}
    arguments = fit_arguments(tmp_path_factory.mktemp("terminal"), (QUICKSTART,), settings)
    command = [sys.executable, "-m", "caopd", *arguments]
    with subprocess.Popen(command, stdout=process_end, stderr=process_end, stdin=process_end) as fit:
        os.close(process_end)
        shown = b"".join(iter(lambda: read_or_end(terminal), b"")).decode()
    os.close(terminal)
    assert fit.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").replace("\n\n", "\n")


def test_a_terminal_shows_what_the_run_does_and_how_long_that_takes(in_terminal):
    """The quickstart's config names a callback, as most do, and its bar must still be the one with phases."""
    time, bar = r"\d:\d\d:\d\d", "[━╺╸]+"
    for number in (0, 1):
        assert re.search(rf"^run +{bar} {number}/2 rounds ", in_terminal, re.M)
        for phase in ("sync", "rollout", "verify", "train", "validation"):
            assert re.search(rf"^round {number + 1} [^\n]*\n{phase} +{bar} ", in_terminal, re.M), phase
    assert re.search(rf"^round 2 +{bar} +{time}, {time} left", in_terminal, re.M)
    assert re.search(rf"^run +{bar} 1/2 rounds +{time}, {time} left", in_terminal, re.M)
    assert re.search(rf"^validation +{bar} \d+/48 completions", in_terminal, re.M)
    assert re.search(rf"^train +{bar} \d/4 batches", in_terminal, re.M)
    assert re.search(r"^loss \d\.\d{3}  mu_hat 0\.\d{3}  accuracy 0\.\d{3}  ECE 0\.\d{3}", in_terminal, re.M)


def test_neither_advertisements_nor_names_of_lightning_are_shown(in_terminal):
    for word in ("Tip", "TPU", "litlogger", "v_num", "train/loss", "Warning", "0.00it/s"):
        assert word not in in_terminal, word


def test_without_a_terminal_progress_is_plain_lines(tmp_path, capsys):
    settings = {"trainer.enable_progress_bar": "true", "trainer.check_val_every_n_epoch": 1}
    assert main(fit_arguments(tmp_path, (QUICKSTART,), settings)) == 0
    output = capsys.readouterr().out
    values = r"loss \d\.\d{3}  mu_hat 0\.\d{3}  accuracy 0\.\d{3}  ECE 0\.\d{3}"
    lines = [line for line in output.splitlines() if line.startswith(("round", "validation", "run"))]
    assert len(lines) == 5
    for number in (1, 2):
        measured = rf"validation at step {4 * number}: accuracy 0\.\d{{3}}  ECE 0\.\d{{3}}"
        assert re.fullmatch(measured, lines[2 * number - 1])
        ended = rf"round {number}/2: {values}  0:00:\d\d elapsed, 0:00:\d\d left"
        assert re.fullmatch(ended, lines[2 * number])
    assert "\x1b" not in output
    assert "━━━" not in output.split("held-out prompts")[0]


def read_or_end(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""
