import itertools
import random

import pytest
import torch

from caopd.errors import ConfigError
from caopd.losses import Denominators, DistillationLoss
from caopd.models.layout import PackingCost
from caopd.models.packing import PackedSequences
from caopd.rounds.batches import BatchPlan, Packing, RoundBatches, collate, step_denominators
from caopd.rounds.filling import TokenizedSample, num_tokens
from caopd.rounds.splice import Completion

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
        samples.append(TokenizedSample((1, 2), (1, 2, 3), completion, (rng.choice([0.0, 0.5, 1.0]),) * length, False))
    return samples


def identities(batch):
    return (batch.completion_ids_BC[:, 0] - 100).tolist()


def of_all_ranks(plan, samples, loss):
    steps = [plan.micro_batches(samples, rank, loss, 0.7, Packing(0)) for rank in range(plan.world_size)]
    return [list(itertools.chain(*of_rank)) for of_rank in steps]


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
            weight_T = loss.token_weights(batch.completion_mask_BC, batch.weight_BC, batch.denominators)
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
            numerator += sample.weights[0] * sum(values) / len(values)
            denominator += sample.weights[0]
        elif values:
            numerator += sample.weights[0] * sum(values)
            denominator += sample.weights[0] * len(values)
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
    batches = list(itertools.chain(*plan.micro_batches(samples, 0, DistillationLoss(), 1.0, Packing(0))))
    assert [identities(batch) for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert batches[3].denominators == step_denominators(samples[6:], DistillationLoss())


@pytest.mark.parametrize(("batch_size", "world_size", "num_samples"), [(8, 1, 12), (4, 2, 12), (0, 1, 8)])
def test_sizes_that_do_not_divide_are_refused(batch_size, world_size, num_samples):
    plan = BatchPlan(batch_size, 1, world_size)
    with pytest.raises(ConfigError, match=rf"{num_samples} training samples.*{batch_size} x {world_size}"):
        plan.check(num_samples)


@pytest.mark.parametrize("num_done", [0, 1, 3, 4])
def test_a_resumed_round_goes_on_behind_what_was_trained_on(num_done):
    plan = BatchPlan(batch_size=2, accumulate=1, world_size=1)
    batches = list(itertools.chain(*plan.micro_batches(samples_of(8), 0, DistillationLoss(), 1.0, Packing(0))))
    resumed = RoundBatches(batches[num_done:], num_done)
    assert len(resumed) == 4
    for _ in range(2):
        assert [identities(batch) for batch in resumed] == [[0, 1], [2, 3], [4, 5], [6, 7]][num_done:]


def sample(student, teacher, completion, weights, marked=1, copies=True, advantage=None):
    mask = (False,) * (len(completion) - marked) + (True,) * marked
    logprobs = tuple(None if is_marked else -0.01 * token for token, is_marked in zip(completion, mask, strict=True))
    return TokenizedSample(student, teacher, Completion(completion, mask, logprobs), weights, copies, advantage)


SAMPLES = [
    sample((11, 12, 13), (14, 15, 16, 17), (21, 22, 23), (0.5, 0.5, 0.25)),
    sample((31,), (32, 33, 34, 35, 36, 37), (41, 42, 43, 44), (0.0, 0.0, 1.0, 1.0), marked=2, copies=False),
    sample((51, 52), (53,), (61,), (0.0,), advantage=-0.25),
]
DENOMINATORS = Denominators(1.5, 6.0)


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("cost", [None, PackingCost(0.0)], ids=["a row each", "shared rows"])
def test_rows_hold_prompts_and_completions_and_predictors_stand_before_the_completions(side, cost):
    rows = getattr(collate(SAMPLES, DENOMINATORS, 0.7, Packing(99, cost, cost)), side)
    ids, positions = rows.ids_BL.flatten(), rows.position_BL.flatten()
    before_T = iter(rows.predictor_T.tolist())
    for each in SAMPLES:
        predictors = [next(before_T) for _ in each.completion.token_ids]
        assert tuple(ids[[index + 1 for index in predictors]].tolist()) == each.completion.token_ids
        prompt = getattr(each, f"{side}_prompt_ids")
        assert tuple(ids[predictors[0] - len(prompt) + 1 : predictors[0] + 1].tolist()) == prompt
        assert positions[predictors].tolist() == list(range(len(prompt) - 1, len(prompt) + len(predictors) - 1))
    assert next(before_T, None) is None
    assert (rows.ids_BL[rows.branch_BL < 0] == 99).all()


def test_completion_streams_keep_the_order_of_the_samples():
    batch = collate(SAMPLES, DENOMINATORS, 0.7, Packing(99))
    in_order = [token for each in SAMPLES for token in each.completion.token_ids]
    assert batch.completion_ids_BC[batch.completion_mask_BC].tolist() == in_order
    assert batch.completion_ids_BC[batch.confidence_mask_BC].tolist() == [23, 43, 44, 61]
    assert batch.weight_BC.tolist() == [[0.5, 0.5, 0.25, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0] * 4]
    assert batch.confidence_alone_B.tolist() == [False, True, False]
    assert batch.copies_context_B.tolist() == [True, False, True]
    torch.testing.assert_close(batch.advantage_B, torch.tensor([torch.nan, torch.nan, -0.25]), equal_nan=True)
    assert not (batch.confidence_mask_BC & ~batch.completion_mask_BC).any()


def test_sampled_logprobs_stand_at_their_tokens():
    """NaN where a token was not sampled, 0 at padding."""
    batch = collate(SAMPLES, DENOMINATORS, 0.7, Packing(99))
    nan = torch.nan
    expected_BC = torch.tensor([[-0.21, -0.22, nan, 0], [-0.41, -0.42, nan, nan], [nan, 0, 0, 0]])
    torch.testing.assert_close(batch.sampled_logprob_BC, expected_BC, equal_nan=True)
    assert batch.sampled_logprob_BC.dtype == torch.float32
    assert not batch.sampled_logprob_BC[~batch.completion_mask_BC].any()


def test_sampled_logprobs_are_float32_where_none_is_known():
    batch = collate(SAMPLES[2:], DENOMINATORS, 0.7, Packing(99))
    assert batch.sampled_logprob_BC.isnan().tolist() == [[True]]
    assert batch.sampled_logprob_BC.dtype == torch.float32


def test_to_moves_every_tensor_and_keeps_the_numbers():
    batch = collate(SAMPLES, DENOMINATORS, 0.7, Packing(99))
    moved = batch.to("meta")
    assert (moved.denominators, moved.temperature) == (DENOMINATORS, 0.7)
    assert isinstance(moved.student, PackedSequences)
    for before, after in ((batch, moved), (batch.student, moved.student), (batch.teacher, moved.teacher)):
        for name, value in vars(after).items():
            if isinstance(value, torch.Tensor):
                old = getattr(before, name)
                assert (value.device.type, value.dtype, value.shape) == ("meta", old.dtype, old.shape), name


def test_the_random_numbers_of_a_micro_batch_are_the_same_after_a_resume():
    whole = [torch.rand(1).item() for _ in RoundBatches([None] * 4, seed=7)]
    assert [torch.rand(1).item() for _ in RoundBatches([None] * 2, num_done=2, seed=7)] == whole[2:]
    assert len(set(whole)) == 4


LIMITED = [
    BatchPlan(batch_size, accumulate, world_size, 60)
    for batch_size, accumulate, world_size in [(8, 1, 1), (4, 2, 1), (6, 1, 2), (12, 1, 1), (2, 4, 3), (16, 1, 1)]
]


def grouped_samples(number, group=4):
    """Groups of samples with a prompt of their own, of 3 to 20 tokens."""
    samples = []
    for n, each in enumerate(samples_of(number)):
        prompt = (200 + n // group,) * (3 + (n // group) * 7 % 18)
        samples.append(TokenizedSample(prompt, (1, *prompt), each.completion, each.weights, copies_context=False))
    return samples


@pytest.mark.parametrize("plan", LIMITED, ids=str)
def test_a_limit_of_tokens_cuts_steps_into_equally_many_micro_batches_of_the_same_samples(plan):
    samples = grouped_samples(48)
    ranks = [plan.micro_batches(samples, rank, DistillationLoss(), 1.0, Packing(0)) for rank in range(plan.world_size)]
    step_size = plan.batch_size * plan.accumulate * plan.world_size
    counts = {len(step) for of_rank in ranks for step in of_rank}
    assert len(counts) == 1
    assert len(ranks[0]) == plan.num_steps(48)
    for number, start in enumerate(range(0, 48, step_size)):
        seen = [one for of_rank in ranks for batch in of_rank[number] for one in identities(batch)]
        assert sorted(seen) == list(range(start, start + step_size))
        expected = step_denominators(samples[start : start + step_size], DistillationLoss())
        assert {batch.denominators for of_rank in ranks for batch in of_rank[number]} == {expected}
    for step in plan.steps(samples):
        assert all(num_tokens(part) <= 60 for share in step for part in share)


def test_a_smaller_last_step_has_as_many_micro_batches_in_every_process():
    plan = BatchPlan(8, 1, 2, max_tokens=20)
    steps = plan.steps(grouped_samples(20))
    assert [[sum(map(len, share)) for share in step] for step in steps] == [[8, 8], [2, 2]]
    assert len({len(share) for share in steps[1]}) == 1


def test_a_limit_below_one_token_is_refused():
    with pytest.raises(ConfigError, match=r"`data.tokens_per_batch` to be at least 1, or null for no limit, but got 0"):
        BatchPlan(4, 1, 1, max_tokens=0).check(8)
