"""What a model of any size knows before training is measured, not assumed."""

import torch

from caopd.models.tiny import build_model, build_tokenizer
from caopd.tasks import DrawTask
from comparing.sizes import NUM_QUESTIONS, knowledge


def test_the_shipped_model_knows_two_kinds_and_its_context():
    found = knowledge("embedded")
    assert found["known"] > 0.95
    assert found["copied"] > 0.95
    questions = DrawTask(num_validation=NUM_QUESTIONS).examples("validation")
    chance = sum(int(question.category.removeprefix("e=")) for question in questions) / 10 / NUM_QUESTIONS
    assert abs(found["unknown"] - chance) < 0.06


def test_an_untrained_model_knows_nothing(tmp_path):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, width=32, num_layers=1)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = knowledge(tmp_path)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["known"] < 0.3
    assert found["copied"] == 0.0
