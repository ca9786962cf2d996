"""A model whose chat template opens the thinking in the prompt: its completions do not say that they are thoughts."""

import json

import pytest

from caopd.models import ModelSource


@pytest.fixture
def thinking_model(tmp_path):
    """The embedded model, which never closes the thought that its prompt opens."""
    tokenizer = ModelSource().load_tokenizer()
    ModelSource().load_model(tokenizer).hf.save_pretrained(tmp_path / "model")
    before, opening, after = tokenizer.chat_template.partition("<|assistant|>")
    assert opening
    tokenizer.chat_template = f"{before}{opening}<think>\n{after}"
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
