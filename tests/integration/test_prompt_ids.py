"""A prompt is rendered once: what rollouts were sampled from is what is trained on, also after a resume."""

import pytest
from transformers import AutoTokenizer

from caopd.models import ModelSource
from caopd.rounds.buffer import load_groups

GRPO = {
    "model.method": "GRPO",
    "model.loss": "PolicyGradientLoss",
    "data.round.num_trained_rollouts": "null",
    "data.batch_size": 32,
}


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """The embedded model with a template that writes the microsecond, as others write the date."""
    directory = tmp_path_factory.mktemp("dated")
    tokenizer = ModelSource().load_tokenizer()
    ModelSource().load_model(tokenizer).hf.save_pretrained(directory)
    tokenizer.chat_template = "{{ strftime_now('%f') }}" + tokenizer.chat_template
    tokenizer.save_pretrained(directory)
    assert "strftime_now" in AutoTokenizer.from_pretrained(directory).chat_template
    return directory


def test_the_sampled_tokens_have_the_same_probability_in_training(dated, fit, every_step, tmp_path):
    """The first step of a round trains on rollouts of the very weights: a difference would be of the prompt."""
    settings = {**GRPO, "model.source.name_or_path": dated, "data.keep_rounds": "null"}
    run = fit(tmp_path / "run", every_step, **settings, **{"trainer.accumulate_grad_batches": 2})
    assert run.scalars("train/kl_sampler") == pytest.approx([0, 0], abs=1e-6)
    prompts = [group.prompt_ids for group in load_groups(run.directory / "rollouts" / "round_00000.jsonl")]
    assert len({ids[:6] for ids in prompts}) > 1
    whole = fit(tmp_path / "whole", every_step, **settings)
    resumed = fit(tmp_path / "resumed", every_step, ckpt_path=whole.checkpoint_file("step1"), **settings)
    assert resumed.scalars("train/loss")[0] == whole.scalars("train/loss")[1]
