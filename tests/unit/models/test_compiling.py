"""Compiled decoder layers compute what the layers do; the backend here traces and needs no compiler."""

import pytest
import torch
from torch._dynamo.utils import counters

from caopd.errors import ConfigError
from caopd.losses import ModelOutput
from caopd.models import ModelSource
from caopd.models.packing import pack
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.training.module import DistillationModule

BACKEND = "aot_eager"
PROMPTS, COMPLETIONS = [[3, 4, 5], [3, 4, 5], [6, 7]], [[8, 9], [10], [11, 12, 13]]


@pytest.fixture
def models():
    torch.compiler.reset()
    counters.clear()
    source = ModelSource()
    plain, compiled = (source.load_model(source.load_tokenizer()) for _ in range(2))
    compiled.compile_layers(BACKEND)
    yield plain, compiled
    torch.compiler.reset()


def gradients(model, completions):
    model.zero_grad()
    rows = pack(PROMPTS, completions, model.pad_token_id, model.packing_cost)
    output = model(rows, ModelOutput)
    (output.hidden_TH @ output.head_VH.T).float().logsumexp(-1).sum().backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def test_gradients_are_those_of_the_layers_for_rows_of_any_length(models):
    for completions in (COMPLETIONS, [[14], [15, 16, 17, 18], [19]]):
        plain, compiled = (gradients(model, completions) for model in models)
        assert torch.allclose(plain, compiled, rtol=1e-4, atol=1e-5 * plain.abs().max())
    assert 0 < counters["stats"]["unique_graphs"] <= 2  # not one for every layer, nor one for every length


def test_sampling_is_not_compiled(models):
    engine = TransformersEngine()
    engine.start(ModelSource().load_tokenizer())
    engine.sync(models[1], 0)
    engine.generate([RolloutRequest((3, 4, 5), seed=1)], 2, Sampling(max_new_tokens=3))
    assert counters["stats"]["unique_graphs"] == 0


def test_a_run_compiles_its_layers_and_refuses_an_unknown_backend():
    module = DistillationModule(source=ModelSource(torch_compile_backend="inductr"))
    with pytest.raises(ConfigError, match=r"torch_compile_backend.*inductor.*got 'inductr'"):
        module.configure_model()
