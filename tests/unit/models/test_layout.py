"""Layouts: each sequence once, never dearer than the simple ways, and the trees of a prompt against every partition."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caopd.models.layout import PackingCost, lay_out

PROMPTS = st.lists(st.integers(1, 40), min_size=1, max_size=5)
GROUPS = st.tuples(PROMPTS, st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60)), min_size=1, max_size=14))

LAWFUL = settings(derandomize=True, deadline=None, max_examples=60)


def of(groups):
    sizes, members = groups
    prompts = [(number % len(sizes),) * sizes[number % len(sizes)] for number, _ in members]
    return prompts, [length for _, length in members]


def cost_of(rows, cost):
    """Of rows of sequences, from the formula."""
    sizes = [sum(len(prompt) + sum(lengths) for prompt, lengths in row) for row in rows]
    length = max(sizes)
    plain = all(len(row) == 1 and len(row[0][1]) == 1 for row in rows)
    return len(rows) * length * (1 + cost.pair * length * (0.5 if plain else 1.0))


@LAWFUL
@given(GROUPS, st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0]))
def test_every_sequence_stands_once_behind_its_own_prompt_and_rows_are_as_long_as_the_longest(groups, pair):
    prompts, lengths = of(groups)
    layout = lay_out(prompts, lengths, PackingCost(pair))
    trees = [tree for row in layout.rows for tree in row]
    assert sorted(number for tree in trees for number in tree) == list(range(len(prompts)))
    assert all(len({prompts[number] for number in tree}) == 1 for tree in trees)
    filled = [sum(len(prompts[tree[0]]) + sum(lengths[n] for n in tree) for tree in row) for row in layout.rows]
    assert layout.length == max(filled)


@LAWFUL
@given(GROUPS, st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0]))
def test_no_layout_costs_more_than_one_sequence_a_row(groups, pair):
    prompts, lengths = of(groups)
    cost, layout = PackingCost(pair), lay_out(prompts, lengths, PackingCost(pair))
    found = cost.of(len(layout.rows), layout.length, layout.is_plain)
    separate = cost_of([[(prompt, [length])] for prompt, length in zip(prompts, lengths, strict=True)], cost)
    assert found <= separate * (1 + 1e-9)


@pytest.mark.parametrize("pair", [0.0, 0.00046, 0.002, 0.005, 0.02, 1.0])
@pytest.mark.parametrize(
    ("prompt", "completion", "group"), [(50, 10, 4), (10, 50, 6), (30, 100, 3), (100, 5, 6), (150, 200, 8)]
)
def test_equal_completions_of_a_prompt_are_cut_as_cheaply_as_any_partition_of_them(pair, prompt, completion, group):
    """A row for every tree, as one long prompt would have; over all numbers of completions that the trees can have."""
    cost = PackingCost(pair)
    layout = lay_out([(1,) * prompt] * group, [completion] * group, cost)
    found = cost.of(len(layout.rows), layout.length, layout.is_plain)
    ways = [
        [[((1,) * prompt, [completion] * size)] for size in sizes]
        for count in range(1, group + 1)
        for sizes in itertools.combinations_with_replacement(range(1, group + 1), count)
        if sum(sizes) == group
    ]
    assert found <= min(cost_of(way, cost) for way in ways) * (1 + 1e-9)


def test_without_pairs_all_is_one_row_and_with_dear_pairs_every_sequence_has_its_own():
    prompts, lengths = [(1, 2), (1, 2), (3,)], [4, 5, 6]
    assert lay_out(prompts, lengths, PackingCost(0.0)).rows == (((0, 1), (2,)),)
    apart = (((0,),), ((1,),), ((2,),))
    assert lay_out(prompts, lengths, PackingCost(100.0)).rows == apart
    assert lay_out(prompts, lengths, None).rows == apart


def test_rows_of_many_prompts_have_little_padding():
    """Lengths of 20 to 400 tokens, as questions have them: one sequence a row is a third padding, the layout is not."""
    rng = random.Random(0)
    prompts = [(number,) * rng.randrange(10, 300) for number in range(32)]
    lengths = [rng.randrange(10, 100) for _ in prompts]
    total = sum(map(len, prompts)) + sum(lengths)
    layout = lay_out(prompts, lengths, PackingCost(0.0003))
    assert total / (len(layout.rows) * layout.length) > 0.9
    plain = lay_out(prompts, lengths, None)
    assert total / (len(plain.rows) * plain.length) < 0.65
