import itertools
import random

import pytest
import torch

from caopd.errors import ConfigError
from caopd.losses import DistillationLoss
from caopd.rounds.batches import BatchPlan, RoundBatches, prompt_indices, prompt_positions, step_denominators
from caopd.rounds.tokens import Completion, TokenizedSample

PLANS = [
    BatchPlan(batch_size, accumulate, world_size)
    for batch_size, accumulate, world_size in itertools.product((1, 2, 4), (1, 3), (1, 2, 3))
]


def samples_of(number):
    """Samples of random lengths and weights; the first completion token tells which one it is."""
    rng = random.Random(number)
    samples = []
    for n in range(number):
        length = rng.randrange(1, 6)
        completion = Completion((100 + n, *[7] * (length - 1)), (False,) * length, (-0.5,) * length)
        samples.append(TokenizedSample((1, 2), (1, 2, 3), completion, rng.choice([0.0, 0.5, 1.0]), False))
    return samples


def identities(batch):
    return (batch.completion_ids_BC[:, 0] - 100).tolist()


def of_all_ranks(plan, samples, loss):
    return [plan.micro_batches(samples, rank, loss, pad_token_id=0) for rank in range(plan.world_size)]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_step_trains_on_its_samples_once_whatever_the_number_of_processes(plan):
    samples = samples_of(24)
    ranks = of_all_ranks(plan, samples, DistillationLoss())
    assert len({len(batches) for batches in ranks}) == 1, "every process makes equally many micro-batches"
    step_size = plan.batch_size * plan.accumulate * plan.world_size
    for number, start in enumerate(range(0, 24, step_size)):
        micro = slice(number * plan.accumulate, (number + 1) * plan.accumulate)
        seen = [identity for batches in ranks for batch in batches[micro] for identity in identities(batch)]
        assert sorted(seen) == list(range(start, min(start + step_size, 24)))
    assert sum(len(batches) for batches in ranks) * plan.batch_size == 24


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
@pytest.mark.parametrize("skip", [0, 3])
def test_the_shares_of_the_micro_batches_add_up_to_the_loss_of_the_step(plan, reduction, skip):
    """With a divergence of its own per token, against a loop over all samples of the step."""
    samples = samples_of(24)
    loss = DistillationLoss(reduction=reduction, skip_first_tokens=skip)
    step_size = plan.batch_size * plan.accumulate * plan.world_size
    step = samples[:step_size]

    def divergence(identity, position):
        return (identity + 1) * 0.1 + position**2

    total = torch.zeros((), dtype=torch.float64)
    for batches in of_all_ranks(plan, samples, loss):
        for batch in batches[: plan.accumulate]:
            weight_T = loss.token_weights(batch.completion_mask_BC, batch.weight_B, batch.denominators)
            values = [
                divergence(identity, position)
                for identity, mask in zip(identities(batch), batch.completion_mask_BC, strict=True)
                for position in range(int(mask.sum()))
            ]
            total += (weight_T.double() * torch.tensor(values, dtype=torch.float64)).sum()

    numerator = denominator = 0.0
    for identity, sample in enumerate(step):
        values = [divergence(identity, t) for t in range(skip, len(sample.completion.token_ids))]
        if values and reduction == "sequence_mean":
            numerator += sample.weight * sum(values) / len(values)
            denominator += sample.weight
        elif values:
            numerator += sample.weight * sum(values)
            denominator += sample.weight * len(values)
    expected = numerator / denominator if denominator else 0.0
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_denominators_count_the_whole_step():
    loss = DistillationLoss()
    samples = samples_of(12)
    plan = BatchPlan(batch_size=2, accumulate=2, world_size=3)
    for batches in of_all_ranks(plan, samples, loss):
        assert {batch.denominators for batch in batches} == {step_denominators(samples, loss)}


def test_the_last_step_of_a_round_may_be_smaller():
    plan = BatchPlan(batch_size=2, accumulate=3, world_size=1)
    samples = samples_of(8)
    batches = plan.micro_batches(samples, 0, DistillationLoss(), 0)
    assert [identities(batch) for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert batches[3].denominators == step_denominators(samples[6:], DistillationLoss())


@pytest.mark.parametrize(("batch_size", "world_size", "num_samples"), [(8, 1, 12), (4, 2, 12), (0, 1, 8)])
def test_sizes_that_do_not_divide_are_refused(batch_size, world_size, num_samples):
    plan = BatchPlan(batch_size, 1, world_size)
    with pytest.raises(ConfigError, match=rf"{num_samples} training samples.*{batch_size} x {world_size}"):
        plan.check(num_samples)


@pytest.mark.parametrize(("num_examples", "num_prompts"), [(7, 3), (4, 4), (5, 2), (10, 1)])
def test_every_pass_over_the_data_is_a_permutation(num_examples, num_prompts):
    num_passes = 3
    stream = []
    for number in range(num_passes * num_examples // num_prompts + 1):
        stream += prompt_indices(prompt_positions(number, num_prompts), num_examples, seed=5)
    passes = [stream[n * num_examples : (n + 1) * num_examples] for n in range(num_passes)]
    for each in passes:
        assert sorted(each) == list(range(num_examples))
    assert len(set(map(tuple, passes))) > 1, "passes are shuffled anew"


def test_rounds_are_the_same_however_the_stream_is_cut_into_them():
    whole = prompt_indices(range(40), 9, seed=1)
    assert [index for n in range(8) for index in prompt_indices(prompt_positions(n, 5), 9, seed=1)] == whole
    assert prompt_indices(range(17, 23), 9, seed=1) == whole[17:23]


def test_the_order_comes_from_the_seed():
    assert prompt_indices(range(50), 50, seed=0) == prompt_indices(range(50), 50, seed=0)
    assert prompt_indices(range(50), 50, seed=0) != prompt_indices(range(50), 50, seed=1)


@pytest.mark.parametrize("num_done", [0, 1, 3, 4])
def test_a_resumed_round_goes_on_behind_what_was_trained_on(num_done):
    plan = BatchPlan(batch_size=2, accumulate=1, world_size=1)
    batches = plan.micro_batches(samples_of(8), 0, DistillationLoss(), 0)
    resumed = RoundBatches(batches[num_done:], num_done)
    assert len(resumed) == 4
    for _ in range(2):
        assert [identities(batch) for batch in resumed] == [[0, 1], [2, 3], [4, 5], [6, 7]][num_done:]
