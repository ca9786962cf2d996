"""Micro-batches filled by tokens, against counts by hand and the promises for any samples."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caopd.models.layout import PackingCost
from caopd.models.packing import pack
from caopd.rounds.filling import TokenizedSample, fill, num_tokens, split
from caopd.rounds.splice import Completion

LAWFUL = settings(derandomize=True, deadline=None, max_examples=60)


def sample(prompt, completion_length, teacher_length=None, number=0):
    """The prompt is ``(number,) * length``."""
    completion = Completion((7,) * completion_length, (False,) * completion_length, (-0.5,) * completion_length)
    teacher = (number, *prompt) if teacher_length is None else (9,) * teacher_length
    return TokenizedSample(prompt, teacher, completion, (1.0,) * completion_length, copies_context=False)


def groups_of(sizes):
    """A group for each prompt length and its completion lengths."""
    return [
        sample((number,) * prompt, length, number=number)
        for number, (prompt, lengths) in enumerate(sizes)
        for length in lengths
    ]


ROUNDS = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(0, 20), min_size=1, max_size=5)), min_size=1, max_size=8
)


def test_tokens_are_those_of_the_longer_side_and_a_prompt_counts_once():
    assert num_tokens([sample((1, 2, 3), 5, teacher_length=10)]) == 15
    shared = [sample((1, 2, 3), 5, teacher_length=2), sample((1, 2, 3), 6, teacher_length=2)]
    assert num_tokens(shared) == 3 + 11
    assert num_tokens([*shared, sample((4,), 1, teacher_length=20)]) == 12 + 22


@LAWFUL
@given(ROUNDS, st.integers(1, 120))
def test_every_sample_is_in_one_micro_batch_and_only_a_long_one_is_above_the_limit(sizes, limit):
    samples = groups_of(sizes)
    filled = fill(samples, limit)
    assert sorted(map(id, samples)) == sorted(id(each) for share in filled for each in share)
    assert all(num_tokens(share) <= limit or len(share) == 1 for share in filled)


@LAWFUL
@given(ROUNDS)
def test_a_group_that_fits_is_not_cut(sizes):
    samples = groups_of(sizes)
    limit = max(1, *(1 + prompt + sum(lengths) for prompt, lengths in sizes))
    shares_of_group = [{each.student_prompt_ids[0] for each in share} for share in fill(samples, limit)]
    for number in range(len(sizes)):
        assert sum(number in groups for groups in shares_of_group) == 1


@LAWFUL
@given(ROUNDS, st.integers(1, 120), st.integers(0, 10))
def test_a_split_gives_as_many_as_asked_and_cuts_between_groups_first(sizes, limit, more):
    samples = groups_of(sizes)
    filled = fill(samples, limit)
    count = min(len(samples), len(filled) + more)
    made = split(filled, count)
    assert len(made) == count
    assert sorted(map(id, samples)) == sorted(id(each) for share in made for each in share)
    assert all(share for share in made)


def test_the_largest_is_cut_between_its_groups():
    samples = groups_of([(3, [1, 1, 1]), (2, [1, 1]), (9, [1])])
    assert [len(share) for share in split([samples], 2)] == [3, 3]
    assert [len(share) for share in split([samples], 3)] == [1, 2, 3]
    halves = split([samples[:5]], 2)
    assert [{each.student_prompt_ids[0] for each in share} for share in halves] == [{0}, {1}]


@pytest.mark.parametrize("limit", [2_000, 4_000, 8_000])
@pytest.mark.parametrize(("prompt", "completion"), [((150, 450), (20, 64)), ((500, 900), (10, 48))])
def test_filled_micro_batches_are_hardly_padded(prompt, completion, limit):
    """With lengths like those of science questions and tool descriptions, G = 8, and the cost of SmolLM2-135M."""
    rng = random.Random(0)
    sizes = [(rng.randint(*prompt), [rng.randint(*completion) for _ in range(8)]) for _ in range(64)]
    held = read = 0.0
    for share in fill(groups_of(sizes), limit):
        ids = [each.completion.token_ids for each in share]
        rows = pack([each.student_prompt_ids for each in share], ids, 0, PackingCost(4.6e-4))
        held += float(rows.share_of_tokens) * rows.num_positions
        read += rows.num_positions
    assert held / read > 0.95
