"""Another model as the teacher, in both stages: its rollouts with forward KL, then the student's with reverse KL."""

import pytest
import torch

from caopd.confidence import InlineConfidence
from caopd.models import ModelSource
from caopd.models.tiny import build_model, build_tokenizer
from caopd.prompts import student_messages
from caopd.rounds.buffer import load_groups
from caopd.rounds.encoding import encode_prompts

BOTH = {
    "model.teacher": "External",
    "model.method": "PlainDistillation",
    "model.schedule": "constant_with_warmup",
    "data.sampling.max_new_tokens": 6,
}
FIRST = {**BOTH, "model.method.rollouts_of": "teacher", "trainer.max_epochs": 4}
SECOND = {**BOTH, "model.loss.body": "ReverseKL", "model.loss.confidence": "ReverseKL", "trainer.max_epochs": 8}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A smaller model of the same tokenizer, whose distributions are far from uniform and from the student's."""
    torch.manual_seed(0)
    directory, tokenizer = tmp_path_factory.mktemp("teacher"), build_tokenizer()
    model = build_model(tokenizer, width=32, num_layers=1)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(5)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return ModelSource(name_or_path=str(directory))


@pytest.fixture(scope="module")
def first(fit, teacher, tmp_path_factory):
    settings = {**FIRST, "model.teacher.source.name_or_path": teacher.name_or_path}
    return fit(tmp_path_factory.mktemp("first"), **settings)


@pytest.fixture(scope="module")
def second(fit, first, teacher, tmp_path_factory):
    settings = {**SECOND, "model.teacher.source.name_or_path": teacher.name_or_path}
    return fit(tmp_path_factory.mktemp("second"), ckpt_path=first.checkpoint_file("round3"), **settings)


def largest_difference(model, group, tokenizer):
    """Of recorded log-probabilities from those of the model on the plain question."""
    (prompt,) = encode_prompts(tokenizer, [student_messages(group.example, InlineConfidence())], {})
    differences = []
    for verified in group.rollouts:
        rollout = verified.rollout
        ids = torch.tensor([[*prompt, *rollout.token_ids]])
        with torch.no_grad():
            logprob_LV = model.hf(input_ids=ids).logits[0].log_softmax(-1)
        sampled = logprob_LV[range(len(prompt) - 1, ids.shape[1] - 1), list(rollout.token_ids)]
        differences.append((sampled - torch.tensor(rollout.logprobs)).abs().max().item())
    return max(differences)


def test_the_first_stage_samples_from_the_teacher_and_the_second_from_the_student(first, second, teacher, policy):
    tokenizer = build_tokenizer()
    model = teacher.load_model(tokenizer)
    sampled_first = load_groups(first.directory / "rollouts" / "round_00003.jsonl")
    assert all(largest_difference(model, group, tokenizer) < 1e-4 for group in sampled_first)
    sampled_second = load_groups(second.directory / "rollouts" / "round_00007.jsonl")
    assert all(largest_difference(model, group, tokenizer) > 1e-2 for group in sampled_second)


def test_the_student_comes_closer_to_the_teacher_in_either_stage(first, second):
    for run in (first, second):
        divergences = run.scalars("train/kl_body")
        assert len(divergences) == 4
        assert divergences[-1] < divergences[0]


def test_the_second_stage_starts_where_the_first_ended_and_the_teacher_stays(first, second, teacher):
    before, after = (run.checkpoint(name)["state_dict"] for run, name in ((first, "round3"), (second, "round7")))
    weights = teacher.load_model(build_tokenizer()).state_dict()
    for state in (before, after):
        for key, weight in weights.items():
            assert torch.equal(state[f"teacher.{key}"], weight)
    assert second.checkpoint("round4")["global_step"] == 5 / 4 * first.checkpoint("round3")["global_step"]
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("student"))


def test_a_copy_of_the_student_is_refused_as_the_teacher(tmp_path, capsys, request):
    from caopd.cli import main

    config = request.config.rootpath / "configs" / "quickstart.yaml"
    assert main(["fit", f"--config={config}", "--model.method=PlainDistillation"]) == 2
    assert "model.teacher" in capsys.readouterr().err
