"""A model whose chat template opens the thinking in the prompt: its completions do not say that they are thoughts."""

import json

import pytest

from caopd.cli import main
from caopd.models import ModelSource


@pytest.fixture(params=["<think>", "<muse>"])
def thinking_model(tmp_path, request):
    """The embedded model, which never closes the thought that its prompt opens, by the usual mark or one of its own."""
    tokenizer = ModelSource().load_tokenizer()
    ModelSource().load_model(tokenizer).hf.save_pretrained(tmp_path / "model")
    before, opening, after = tokenizer.chat_template.partition("<|assistant|>")
    assert opening
    close = request.param.replace("<", "</")
    declaration = f"{{% if message.thinking %}}{request.param}{{{{ message.thinking }}}}{close}{{% endif %}}"
    before = before.replace("{{ message['content'] }}", declaration + "{{ message['content'] }}")
    assert declaration in before
    tokenizer.chat_template = f"{before}{opening}{request.param}\n{after}"
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_an_unfinished_thought_is_no_answer_and_is_not_taught_to_state_a_confidence(fit, thinking_model, tmp_path):
    changes = {"trainer.max_epochs": "1", "trainer.check_val_every_n_epoch": "1", "model.optimizer.init_args.lr": "0.0"}
    run = fit(tmp_path / "run", **{"model.source.name_or_path": str(thinking_model), **changes})
    for name in ("val/greedy/accuracy", "val/greedy/format_adherence", "rollout/accuracy", "rollout/format_adherence"):
        assert set(run.scalars(name)) == {0.0}, name
    assert run.scalars("rollout/unfinished_thinking") == [1.0]
    scalars = run.events.Tags()["scalars"]
    assert "train/kl_body" in scalars
    assert "train/kl_confidence" not in scalars
    lines = (run.directory / "rollouts" / "round_00000.jsonl").read_text().splitlines()[1:]
    rollouts = [each for line in lines for each in json.loads(line)["rollouts"]]
    assert {each["reading"]["outcome"] for each in rollouts} == {"unfinished"}
    assert {each["verdict"]["answer"] for each in rollouts} == {None}


def test_what_is_predicted_is_scored_without_the_prompt_that_opened_the_thought(thinking_model, tmp_path):
    """Nothing in the text of the responses says that they are thoughts."""
    arguments = {
        "model.source.name_or_path": thinking_model,
        "trainer.default_root_dir": tmp_path,
        "predictions.output": tmp_path / "p.jsonl",
        "data.task.num_test": 8,
    }
    assert main(["predict", "--config", "configs/quickstart.yaml", *(f"--{k}={v}" for k, v in arguments.items())]) == 0
    (path, *_) = tmp_path.glob("p*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["thoughts"] for row in rows] == [[[0, len(row["response"])]] for row in rows]
    assert {(row["confidence_outcome"], row["answer_outcome"]) for row in rows} == {("unfinished", "missing")}
    assert main(["score", str(path), "--task=draw", f"--output={tmp_path / 's.json'}", "--resamples=0"]) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    values = {name: scores[name]["value"] for name in ("accuracy", "format_adherence", "decimal_format", "other_form")}
    assert set(values.values()) == {0.0}
