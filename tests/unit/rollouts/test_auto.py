import importlib.util
import logging

import pytest
import torch

from caopd.errors import ConfigError, RolloutError
from caopd.models import LanguageModel
from caopd.models.tiny import build_model
from caopd.rollouts import (
    AutoEngine,
    RolloutRequest,
    Sampling,
    ServerOptions,
    TransformersEngine,
    VLLMEngine,
    VLLMOptions,
    auto,
)
from tests.needs import needs_vllm


@pytest.fixture
def large(tokenizer):
    """The embedded architecture with more than a million parameters."""
    hf = build_model(tokenizer, width=256, num_layers=2).eval()
    return LanguageModel(hf, (2,), 0)


def chosen(policy, tokenizer, caplog):
    """The choice, and what was said of it, without starting what was chosen."""
    engine = AutoEngine(VLLMOptions(max_num_seqs=7), batch_size=3)
    engine.start(tokenizer)
    assert engine.rounding is None
    return engine._choose(policy)


def test_a_small_model_is_sampled_from_by_transformers(policy, tokenizer, caplog):
    engine = AutoEngine(batch_size=3)
    engine.start(tokenizer)
    with caplog.at_level(logging.INFO):
        engine.sync(policy, 0)
    assert isinstance(engine.chosen, TransformersEngine)
    assert engine.chosen.batch_size == 3
    assert "rollout engine: TransformersEngine, because the model is small" in caplog.text
    assert len(engine.generate([RolloutRequest((5, 6), 0)], 2, Sampling(max_new_tokens=2))[0]) == 2
    engine.close()
    with pytest.raises(RolloutError, match="sync"):
        engine.generate([], 1, Sampling())


@needs_vllm
def test_a_larger_model_is_sampled_from_by_vllm(large, tokenizer, caplog):
    engine, reason = chosen(large, tokenizer, caplog)
    assert isinstance(engine, VLLMEngine)
    assert engine._backend.options.max_num_seqs == 7
    assert "vLLM is installed" in reason


def test_without_vllm_transformers_samples(large, tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(auto, "find_spec", lambda name: None)
    engine, reason = chosen(large, tokenizer, caplog)
    assert isinstance(engine, TransformersEngine)
    assert "pip install 'caopd[vllm]'" in reason


def test_asking_for_vllm_without_it_says_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr("caopd.rollouts.vllm.local.find_spec", lambda name: None if name == "vllm" else real(name))
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'caopd\[vllm\]'"):
        VLLMEngine()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "server"}, "without servers"),
        ({"servers": ServerOptions(["http://localhost:1"])}, "'child' with servers"),
        ({"max_restarts": -1}, "`max_restarts`.*at least 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        VLLMEngine(**arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"memory_share": 0.0}, r"`memory_share`.*\(0, 1\].*0.0"),
        ({"memory_share": 1.5}, r"`memory_share`"),
        ({"kv_cache_gib": -1.0}, "`kv_cache_gib`.*positive"),
        ({"tensor_parallel_size": 0}, "`tensor_parallel_size`.*at least 1"),
        ({"max_num_seqs": 0}, "`max_num_seqs`.*at least 1"),
        ({"max_model_len": 0}, "`max_model_len`.*at least 1"),
    ],
)
def test_impossible_options_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        VLLMOptions(**arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"urls": []}, "list of http addresses"),
        ({"urls": ["localhost:8000"]}, "localhost:8000"),
        ({"urls": ["http://a"], "concurrency": 0}, "`concurrency`"),
        ({"urls": ["http://a"], "retries": -1}, "`retries`"),
        ({"urls": ["http://a"], "timeout_seconds": 0}, "`timeout_seconds`"),
    ],
)
def test_impossible_servers_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        ServerOptions(**arguments)


@needs_vllm
def test_in_process_refuses_a_group_of_processes(policy, tokenizer, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        engine = VLLMEngine(mode="in_process")
        engine.start(tokenizer)
        with pytest.raises(ConfigError, match=r"no process group.*mode: child"):
            engine.sync(policy, 0)
    finally:
        torch.distributed.destroy_process_group()
