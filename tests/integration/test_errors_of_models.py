"""Errors of models and checkpoints: one screen that says what, where and how to mend it, and a non-zero status."""

import pytest
import torch

from caopd.cli import main
from caopd.models.tiny import build_model, build_tokenizer


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
