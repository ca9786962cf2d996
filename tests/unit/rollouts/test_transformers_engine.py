import copy

import pytest
import torch

from caopd.errors import ConfigError, RolloutError
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine


@pytest.fixture
def observed(policy):
    """Rows of every forward pass of the model."""
    rows = []
    hook = policy.hf.base_model.register_forward_pre_hook(
        lambda module, arguments, keywords: rows.append(len(keywords["input_ids"])), with_kwargs=True
    )
    yield rows
    hook.remove()


@pytest.mark.parametrize(("batch_size", "num_rollouts"), [(8, 2), (8, 3), (2, 8), (1, 4)])
def test_no_more_completions_than_the_batch_size_are_sampled_at_once(
    tokenizer, policy, observed, batch_size, num_rollouts
):
    engine = TransformersEngine(batch_size)
    engine.start(tokenizer)
    engine.sync(policy, 0)
    requests = [RolloutRequest((4, 120, 125), seed) for seed in range(7)]
    groups = engine.generate(requests, num_rollouts, Sampling(max_new_tokens=2))
    assert [len(group) for group in groups] == [num_rollouts] * 7
    # A group is never split.
    assert max(observed) == max(batch_size - batch_size % num_rollouts, num_rollouts)


def test_prompts_are_read_once_for_all_their_rollouts(tokenizer, policy, observed):
    engine = TransformersEngine()
    engine.start(tokenizer)
    engine.sync(policy, 0)
    engine.generate([RolloutRequest((4, 120, 125), 0)], 16, Sampling(max_new_tokens=2))
    assert observed == [1, 16, 16]


@pytest.mark.parametrize("sampling", [Sampling(0.0, max_new_tokens=2), Sampling(1.0), Sampling(0.7, 0.9, 5)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_no_numbers_are_an_error_in_words(tokenizer, policy, sampling, value):
    broken = copy.deepcopy(policy)
    with torch.no_grad():
        broken.hf.get_output_embeddings().weight[7] = value
    engine = TransformersEngine()
    engine.start(tokenizer)
    engine.sync(broken, 3)
    with pytest.raises(RolloutError, match=r"logits of policy version 3.*NaN or infinite"):
        engine.generate([RolloutRequest((4, 120, 125), 0)], 2, sampling)


def test_an_impossible_batch_size_is_refused():
    with pytest.raises(ConfigError, match=r"`batch_size` of TransformersEngine.*at least 1.*0"):
        TransformersEngine(0)


def test_what_rounding_may_explain_is_that_of_the_arithmetic(policy):
    engine = TransformersEngine()
    assert engine.rounding is None
    engine.sync(policy, 0)
    assert engine.rounding == pytest.approx(0.002)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert engine.rounding == pytest.approx(0.05)
    engine.sync(copy.deepcopy(policy).to(torch.bfloat16), 1)
    assert engine.rounding == pytest.approx(0.05)
