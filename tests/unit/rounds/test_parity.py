"""The comparison itself, with an engine whose log-probabilities are the model's own; leaks are elsewhere."""

import copy
import dataclasses
import math

import pytest
import torch

from caopd.errors import ConfigError, RolloutError
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.rounds.parity import ParityConfig, _recomputed, check_parity, stated_logprobs

PROMPTS = [(5, 6, 7), (8, 9), (10,), (11, 12, 13, 14)]
SAMPLING = Sampling(temperature=1.5, max_new_tokens=6)
ROUNDING = 0.002


@pytest.fixture(scope="module")
def groups(policy, tokenizer):
    engine = TransformersEngine()
    engine.start(tokenizer)
    engine.sync(policy, 0)
    requests = [RolloutRequest(prompt, n) for n, prompt in enumerate(PROMPTS)]
    return engine.generate(requests, 3, SAMPLING)


def shifted(groups, which, by):
    """The groups with other log-probabilities in some rollouts."""
    changed = [list(group) for group in groups]
    for group, rollout in which:
        before = changed[group][rollout]
        changed[group][rollout] = dataclasses.replace(before, logprobs=tuple(value + by for value in before.logprobs))
    return changed


def test_the_students_own_rollouts_agree(policy, groups):
    values = check_parity(policy, PROMPTS, groups, SAMPLING, ParityConfig(num_rollouts=12), ROUNDING)
    assert values["parity_mean"] <= values["parity_max"] < 1e-5


def test_the_logged_values_are_mean_and_maximum_over_tokens(policy, groups):
    changed = shifted(groups, [(1, 0), (1, 1), (1, 2)], -0.5)
    values = check_parity(policy, PROMPTS, changed, SAMPLING, ParityConfig(num_rollouts=12, limit=1.0), ROUNDING)
    counts = [sum(len(rollout.token_ids) for rollout in group) for group in groups]
    assert values["parity_mean"] == pytest.approx(0.5 * counts[1] / sum(counts), abs=1e-5)
    assert values["parity_max"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("by", [0.003, -0.003])
def test_one_rollout_that_differs_stops_the_run(policy, groups, by):
    changed = shifted(groups, [(2, 1)], by)
    with pytest.raises(RolloutError, match=r"within 0.002 nats .* up to 0.0030"):
        check_parity(policy, PROMPTS, changed, SAMPLING, ParityConfig(num_rollouts=12), ROUNDING)
    check_parity(policy, PROMPTS, changed, SAMPLING, ParityConfig(num_rollouts=12, limit=0.004), ROUNDING)


@pytest.mark.parametrize("where", [(0, 0), (1, 2), (3, 2)])
def test_a_difference_that_is_not_a_number_stops_the_run(policy, groups, where):
    with pytest.raises(RolloutError, match="not on-policy"):
        check_parity(policy, PROMPTS, shifted(groups, [where], float("nan")), SAMPLING, ParityConfig(12), ROUNDING)


def test_other_weights_stop_the_run(policy, groups):
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.hf.get_output_embeddings().weight.mul_(1.1)
    with pytest.raises(RolloutError, match="not on-policy"):
        check_parity(other, PROMPTS, groups, SAMPLING, ParityConfig(), ROUNDING)


def test_compared_rollouts_are_spread_over_all_groups(policy, groups):
    """With four of twelve, one of every group: a fault in any single group is seen."""
    for group in range(4):
        changed = shifted(groups, [(group, index) for index in range(3)], 1.0)
        with pytest.raises(RolloutError, match="not on-policy"):
            check_parity(policy, PROMPTS, changed, SAMPLING, ParityConfig(num_rollouts=4), ROUNDING)


def test_nothing_is_compared_where_there_is_nothing_to_compare(policy, groups):
    wrong = shifted(groups, [(g, r) for g in range(4) for r in range(3)], 9.0)
    assert check_parity(policy, PROMPTS, wrong, SAMPLING, ParityConfig(), None) == {}
    assert check_parity(policy, PROMPTS, wrong, SAMPLING, ParityConfig(num_rollouts=0), ROUNDING) == {}


def test_the_mode_of_the_policy_stays(policy, groups):
    student = copy.deepcopy(policy).train()
    check_parity(student, PROMPTS, groups, SAMPLING, ParityConfig(), ROUNDING)
    assert student.training


@pytest.mark.parametrize("arguments", [{"num_rollouts": -1}, {"limit": -0.1}])
def test_negative_settings_are_refused(arguments):
    with pytest.raises(ConfigError, match="0 or larger"):
        ParityConfig(**arguments)


def by_definition(logprobs, target, temperature, top_k, top_p):
    """In plain floats: temperature, then top-k, then top-p; the target is kept in any case."""
    scaled = [value / temperature for value in logprobs]
    ranked = sorted(range(len(scaled)), key=lambda token: -scaled[token])
    kept = ranked[: top_k or None]
    total = math.fsum(math.exp(scaled[token]) for token in kept)
    nucleus, mass = set(), 0.0
    for token in kept:
        if mass < top_p:
            nucleus.add(token)
            mass += math.exp(scaled[token]) / total
    return scaled[target] - math.log(math.fsum(math.exp(scaled[token]) for token in nucleus | {target}))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 4, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.8, 0.2])
def test_the_stated_logprob_is_that_of_the_definition(temperature, top_k, top_p):
    logprobs = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(0)
    every = torch.arange(9)
    actual = stated_logprobs(logprobs.expand(9, -1), every, Sampling(temperature, top_p, top_k))
    expected = [by_definition(logprobs.tolist(), token, temperature, top_k, top_p) for token in range(9)]
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


def test_a_greedy_choice_is_as_far_off_as_the_most_probable_token_is_likelier():
    logprobs = torch.tensor([0.5, 0.3, 0.2]).log().expand(3, -1)
    stated = stated_logprobs(logprobs, torch.arange(3), Sampling(temperature=0))
    torch.testing.assert_close(stated, torch.tensor([1.0, 0.6, 0.4]).log())


def test_an_engine_that_does_not_say_what_it_drew_from_is_compared_before_that_alone(policy, groups):
    """As vLLM: temperature 1.5 cannot be told from the settings' 1 then."""
    silent = [[dataclasses.replace(rollout, drawn_logprobs=None) for rollout in group] for group in groups]
    check_parity(policy, PROMPTS, silent, Sampling(), ParityConfig(), ROUNDING)
    with pytest.raises(RolloutError, match="it is the sampling that differs"):
        check_parity(policy, PROMPTS, groups, Sampling(), ParityConfig(), ROUNDING)


def test_a_temperature_below_1_allows_for_what_it_makes_of_rounding(policy, groups):
    sampling = Sampling(temperature=0.1)
    ids = [(prompt, rollout) for prompt, group in zip(PROMPTS, groups, strict=True) for rollout in group]
    stated = [_recomputed(policy, *pair, sampling).drawn.model_T for pair in ids]
    for by, within in ((0.019, True), (0.021, False)):
        drawn = iter([tuple((each + by).tolist()) for each in stated])
        changed = [[dataclasses.replace(each, drawn_logprobs=next(drawn)) for each in group] for group in groups]
        arguments = (policy, PROMPTS, changed, sampling, ParityConfig(12), ROUNDING)
        if within:
            check_parity(*arguments)
        else:
            with pytest.raises(RolloutError, match=r"within 0\.02 nats"):
                check_parity(*arguments)


def test_completions_without_tokens_are_left_out(policy, groups):
    empty = [[dataclasses.replace(each, token_ids=(), logprobs=(), drawn_logprobs=()) for each in g] for g in groups]
    assert check_parity(policy, PROMPTS, empty, SAMPLING, ParityConfig(), ROUNDING) == {}
    assert check_parity(policy, PROMPTS, [*groups[:3], empty[3]], SAMPLING, ParityConfig(), ROUNDING)
