import math

import pytest
import torch
from scipy.stats import chisquare

from caopd.errors import ConfigError
from caopd.rollouts import Sampling
from caopd.rollouts.sampler import SeededSampler

CPU = torch.device("cpu")
NUM_ROWS = 20_000
LOGITS = torch.tensor([1.0, -2.0, 0.5, 2.0, -torch.inf, 0.0, 1.5, -0.5])


def samples(logits_V, sampling, seed=0, number=NUM_ROWS):
    """Tokens that one group of ``number`` rows samples in one step, and their recorded log-probabilities."""
    sampler = SeededSampler([seed], number, sampling, CPU)
    scores_BV = sampler(torch.zeros(number, 1, dtype=torch.long), logits_V.expand(number, -1).clone())
    assert (scores_BV.isfinite().sum(1) == 1).all()
    return scores_BV.argmax(1), sampler.logprobs_BT()[:, 0]


def reference(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution by its definition, in plain floats: temperature, then top-k, then top-p."""
    scaled = [logit / temperature for logit in logits]
    if top_k:
        kept = sorted(range(len(scaled)), key=lambda token: -scaled[token])[:top_k]
        scaled = [logit if token in kept else -math.inf for token, logit in enumerate(scaled)]
    total = math.fsum(math.exp(logit) for logit in scaled)
    probabilities = [math.exp(logit) / total for logit in scaled]
    nucleus, mass = set(), 0.0
    for token in sorted(range(len(scaled)), key=lambda token: -probabilities[token]):
        if mass < top_p:
            nucleus.add(token)
            mass += probabilities[token]
    return [p / mass if token in nucleus else 0.0 for token, p in enumerate(probabilities)]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.5},
        {"top_k": 3},
        {"top_k": 1},
        {"top_k": 100},
        {"top_p": 0.75},
        {"top_p": 0.01},
        {"temperature": 1.7, "top_k": 5, "top_p": 0.9},
    ],
    ids=str,
)
def test_tokens_are_sampled_from_the_defined_distribution(arguments):
    expected = torch.tensor(reference(LOGITS.tolist(), **arguments), dtype=torch.float64)
    tokens, _ = samples(LOGITS, Sampling(**arguments))
    counts = torch.bincount(tokens, minlength=len(LOGITS)).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0, "a token outside the kept set was sampled"
    if possible.sum() > 1:
        assert chisquare(counts[possible], expected[possible] * NUM_ROWS).pvalue > 1e-3


def test_tokens_without_probability_are_never_sampled_at_any_end():
    logits_V = torch.full((1_000,), -torch.inf)
    logits_V[[200, 201, 700]] = torch.tensor([0.0, -40.0, 0.0])
    tokens, _ = samples(logits_V, Sampling(), number=50_000)
    assert set(tokens.tolist()) <= {200, 201, 700}


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 200), (0.49, 200), (0.51, 700), (math.nextafter(1.0, 0.0), 700)])
def test_the_ends_of_the_unit_interval_take_the_first_and_the_last_possible_token(uniform, token):
    logits_V = torch.full((1_000,), -torch.inf)
    logits_V[[200, 700]] = 0.0
    sampler = SeededSampler([0], 1, Sampling(), CPU)
    sampler.uniforms_BT.fill_(uniform)
    assert sampler(torch.zeros(1, 1, dtype=torch.long), logits_V[None]).argmax().item() == token


def test_a_flat_distribution_over_a_large_vocabulary_reaches_both_ends():
    tokens, _ = samples(torch.zeros(100), Sampling(), number=5_000)
    assert chisquare(torch.bincount(tokens, minlength=100).double()).pvalue > 1e-3


def test_greedy_takes_the_most_probable_token_of_every_row():
    scores_BV = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    sampler = SeededSampler([0, 1], 25, Sampling(temperature=0.0, top_p=0.5, top_k=3), CPU)
    chosen_B = sampler(torch.zeros(50, 1, dtype=torch.long), scores_BV).argmax(1)
    assert torch.equal(chosen_B, scores_BV.argmax(1))


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.3, top_k=4, top_p=0.8), Sampling(temperature=0)], ids=str
)
def test_the_recorded_logprob_is_that_of_the_raw_logits(sampling):
    tokens, logprobs = samples(LOGITS, sampling, number=200)
    torch.testing.assert_close(logprobs.double(), LOGITS.double().log_softmax(0)[tokens], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"temperature": 2.5}, {"top_k": 3}, {"top_p": 0.75}, {"temperature": 1.7, "top_k": 5, "top_p": 0.9}],
)
def test_the_drawn_logprob_is_that_of_what_the_token_was_drawn_from(arguments):
    sampler = SeededSampler([0], 200, Sampling(**arguments), CPU)
    tokens = sampler(torch.zeros(200, 1, dtype=torch.long), LOGITS.expand(200, -1).clone()).argmax(1)
    assert torch.equal(sampler.chosen_BT()[:, 0], tokens)
    expected = torch.tensor(reference(LOGITS.tolist(), **arguments)).log()[tokens]
    torch.testing.assert_close(sampler.drawn_logprobs_BT()[:, 0], expected, rtol=0, atol=1e-5)


def test_what_is_taken_greedily_is_certain():
    sampler = SeededSampler([0], 3, Sampling(temperature=0), CPU)
    sampler(torch.zeros(3, 1, dtype=torch.long), LOGITS.expand(3, -1).clone())
    assert sampler.drawn_logprobs_BT().tolist() == [[0.0]] * 3


def test_half_precision_logits_are_recorded_in_single_precision():
    tokens, logprobs = samples(LOGITS.bfloat16(), Sampling(), number=200)
    expected = LOGITS.bfloat16().double().log_softmax(0)[tokens]
    torch.testing.assert_close(logprobs.double(), expected, rtol=0, atol=1e-6)


def test_steps_and_rows_are_sampled_independently():
    sampler = SeededSampler([3], NUM_ROWS, Sampling(max_new_tokens=2), CPU)
    logits_BV = torch.tensor([0.4, 0.6]).log().expand(NUM_ROWS, -1)
    nothing = torch.zeros(NUM_ROWS, 1, dtype=torch.long)
    first, second = (sampler(nothing, logits_BV.clone()).argmax(1) for _ in range(2))
    probabilities = torch.tensor([0.16, 0.24, 0.24, 0.36], dtype=torch.float64)
    pairs = torch.bincount(2 * first + second, minlength=4).double()
    assert chisquare(pairs, probabilities * NUM_ROWS).pvalue > 1e-3
    neighbours = torch.bincount(2 * first[0::2] + first[1::2], minlength=4).double()
    assert chisquare(neighbours, probabilities * NUM_ROWS / 2).pvalue > 1e-3


def test_a_groups_tokens_come_from_its_seed_alone():
    logits_V = torch.zeros(1_000)
    alone = {seed: samples(logits_V, Sampling(), seed, number=6)[0] for seed in (7, 8, 9)}
    sampler = SeededSampler([9, 7, 8], 6, Sampling(), CPU)
    together = sampler(torch.zeros(18, 1, dtype=torch.long), logits_V.expand(18, -1).clone()).argmax(1)
    assert torch.equal(together, torch.cat([alone[9], alone[7], alone[8]]))
    assert len({tuple(tokens.tolist()) for tokens in alone.values()}) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"temperature": -0.1}, r"`temperature`.*-0\.1"),
        ({"top_p": 0.0}, r"`top_p`.*0\.0"),
        ({"top_p": 1.1}, r"`top_p`.*1\.1"),
        ({"top_k": -1}, r"`top_k`.*-1"),
        ({"max_new_tokens": 0}, r"`max_new_tokens`.*0"),
    ],
)
def test_impossible_settings_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        Sampling(**arguments)
