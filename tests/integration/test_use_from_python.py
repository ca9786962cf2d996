"""The page "Use from Python" does what it says, block by block, and so does a plain Trainer where it strays from it."""

import json
import re
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from caopd import (
    TRAINER_DEFAULTS,
    CaopdError,
    DistillationModule,
    DrawTask,
    EvaluationConfig,
    ModelSource,
    RolloutDataModule,
    RoundConfig,
    Sampling,
    default_callbacks,
)
from caopd.cli import main
from caopd.rounds.buffer import load_groups

PAGE = Path(__file__).parents[2] / "docs" / "use_from_python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names that the page's script leaves, and the folder that it ran in."""
    directory = tmp_path_factory.mktemp("page")
    names = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"block {number} of {PAGE.name}", "exec"), names)
    return names, directory


def test_every_block_of_the_page_is_run():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(BLOCKS)
    assert len(BLOCKS) == 8


def test_training_leaves_what_the_command_line_leaves(page):
    names, directory = page
    run = directory / names["run"]
    files = {path.relative_to(run).parts[0].partition(".")[0] for path in run.rglob("*") if path.is_file()}
    assert files >= {"events", "metrics", "step_000008", "rollouts", "checkpoints"}
    assert [path.name for path in (run / "step_000008").iterdir()] == ["test.json"]
    assert len(load_groups(run / "rollouts" / "round_00003.jsonl")) == 64
    metrics = json.loads((run / "metrics.json").read_text())
    assert [metrics[moment]["step"] for moment in ("initial", "final")] == [0, 8]
    assert [metrics[moment][event]["n"] for event in ("greedy", "sampled") for moment in ("initial", "final")] == [
        100
    ] * 4
    assert metrics["final"]["greedy"]["ece"] < metrics["initial"]["greedy"]["ece"]
    assert names["tested"]["n"] == 100


def test_the_student_answers_and_is_saved(page):
    names, directory = page
    assert names["text"] == f"{names['verdict'].answer}\nConfidence: {names['reading'].value:.2f}"
    saved = ModelSource(str(directory / "my_student")).load_model(names["module"].tokenizer)
    trained = names["module"].student.state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in saved.state_dict().items())


def test_metrics_callback_and_error_are_as_described(page):
    names, _ = page
    assert names["scores"]["format_adherence"] == pytest.approx(2 / 3)
    rounds = len(names["stop"].accuracies)
    assert 1 <= rounds < 50
    assert names["trainer"].callback_metrics["val/sampled/ece"] < 0.5
    assert all(0 < accuracy < 1 for accuracy in names["stop"].accuracies)


def test_caopd_report_shows_a_run_of_a_script(page, tmp_path):
    names, directory = page
    assert main(["report", str(directory / names["run"]), f"--output={tmp_path / 'report'}"]) == 0
    metrics = json.loads((directory / names["run"] / "metrics.json").read_text())
    assert (
        f"{metrics['final']['sampled']['ece']}" in (tmp_path / "report" / "tables" / "metrics_sampled.csv").read_text()
    )


def fit(directory, *, ckpt_path=None, **settings):
    """Fit four prompts a round for two rounds, and read what was measured."""
    data = RolloutDataModule(
        DrawTask(num_train=16, num_validation=12, num_test=1),
        round=RoundConfig(num_prompts_per_round=4, num_rollouts=2, num_trained_rollouts=1),
        sampling=Sampling(max_new_tokens=8),
        batch_size=4,
        evaluation=EvaluationConfig(max_new_tokens=8, batch_size=4),
    )
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=directory,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=default_callbacks(progress_bar=False),
        **{**TRAINER_DEFAULTS, "max_epochs": 2, **settings},
    )
    trainer.fit(DistillationModule(warmup=0.0, schedule="constant_with_warmup"), datamodule=data, ckpt_path=ckpt_path)
    return trainer, json.loads((Path(trainer.log_dir) / "metrics.json").read_text())


def test_weights_that_no_validation_has_seen_are_validated_at_the_end(tmp_path):
    validated, measured = fit(tmp_path / "validated")
    trainer, unseen = fit(tmp_path / "unseen", check_val_every_n_epoch=5)
    assert unseen == measured
    assert [unseen[moment]["step"] for moment in ("initial", "final")] == [0, 2]
    assert trainer.state == validated.state
    file = Path(trainer.log_dir) / "step_000002" / "validate.json"
    assert not file.parent.exists()  # the validation that ends a fit is none of its own
    trainer.validate(trainer.lightning_module, datamodule=trainer.datamodule)
    tasks = json.loads(file.read_text())["tasks"]
    assert tasks == {"in_domain": {name: unseen["final"][name] for name in ("greedy", "sampled")}}


def test_a_run_that_goes_on_from_its_end_is_measured_again(tmp_path):
    trainer, measured = fit(tmp_path)
    again, found = fit(tmp_path, ckpt_path=trainer.checkpoint_callback.best_model_path)
    assert again.log_dir != trainer.log_dir
    assert found == measured


def test_a_sanity_check_of_some_batches_is_no_measurement_before_training(tmp_path):
    with pytest.warns(UserWarning, match=r"got the first 1 of its 3 batches: `initial` in metrics.json will be null"):
        _, measured = fit(tmp_path, num_sanity_val_steps=1)
    assert measured["initial"] is None
    assert [measured["final"][event]["n"] for event in ("greedy", "sampled")] == [12, 12]


def test_a_trainer_without_the_defaults_is_told_what_to_set(tmp_path):
    with pytest.raises(CaopdError, match=r"Trainer\(reload_dataloaders_every_n_epochs=1\)"):
        fit(tmp_path, reload_dataloaders_every_n_epochs=0)
