"""Planned micro-batches against rows that are packed of tokens, and against counts by hand."""

from dataclasses import replace

import pytest

from caopd.commands.plan.micro_batches import RoundShape, RowLengths, Rows
from caopd.errors import ConfigError
from caopd.models.layout import PackingCost
from caopd.models.packing import pack
from caopd.rounds.batches import BatchPlan

CHEAP = PackingCost(0.0003)
ROW = RowLengths(student=50, teacher=70, completion=6, longest_completion=10)
SHAPE = RoundShape(num_prompts=4, num_trained=3, plan=BatchPlan(6, 2, 1), student=CHEAP, teacher=CHEAP)


def test_the_prompts_of_a_group_are_read_once():
    first, second = SHAPE.typical([ROW])
    assert first == second
    assert (first.num_sequences, first.num_completion_tokens) == (6, 36)
    assert first.student == Rows(2, 50 + 3 * 6, False, 2 * (50 + 3 * 6))
    assert first.teacher.num_tokens == 2 * (70 + 3 * 6)
    apart = replace(SHAPE, student=None).typical([ROW])[0]
    assert apart.student == Rows(6, 56, True, 6 * 56)
    assert apart.teacher == first.teacher


def test_a_rollout_that_the_teacher_sees_is_itself_shown_another():
    shown = SHAPE.typical([replace(ROW, shows_rollout=True)])[0]
    assert shown.teacher.num_tokens == 2 * (2 * 70 + 3 * 6)
    assert shown.student.num_tokens == 2 * (50 + 3 * 6)
    alone = replace(SHAPE, num_prompts=12, num_trained=1).typical([replace(ROW, shows_rollout=True)])[0]
    assert alone.teacher.num_tokens == 6 * (70 + 6)


@pytest.mark.parametrize("cost", [None, PackingCost(0.0), CHEAP, PackingCost(0.01)])
def test_rows_are_those_that_tokens_are_packed_in(cost):
    lengths = [30, 90, 45, 200]
    rows = [RowLengths(length, length + 25, 12, 12) for length in lengths]
    shape = RoundShape(4, 3, BatchPlan(12, 1, 1), cost, cost)
    (batch,) = shape.typical(rows)
    prompts = [[number] * length for number, length in enumerate(lengths) for _ in range(3)]
    packed = pack(prompts, [[9] * 12] * 12, 0, cost)
    assert (batch.student.num_rows, batch.student.length) == tuple(packed.ids_BL.shape)
    assert batch.student.is_plain == packed.is_plain
    assert batch.student.num_tokens == int((packed.branch_BL >= 0).sum())


def test_a_limit_of_tokens_fills_micro_batches():
    plan = BatchPlan(6, 2, 1, max_tokens=100)
    batches = replace(SHAPE, plan=plan).typical([ROW])
    assert [batch.num_sequences for batch in batches] == [3] * 4  # a group has 70 + 3 x 6 tokens
    tight = replace(SHAPE, plan=replace(plan, max_tokens=82)).typical([ROW])
    assert sorted(batch.num_sequences for batch in tight) == [1] * 4 + [2] * 4
    assert all(max(b.student.num_tokens, b.teacher.num_tokens) <= 82 for b in tight)


def test_the_largest_are_of_the_longest_rows_and_of_full_completions():
    rows = [replace(ROW, student=length, teacher=length + 20) for length in (10, 300, 20, 250, 30, 40)]
    pairs = replace(SHAPE, num_prompts=2, plan=BatchPlan(6, 1, 1)).largest(rows)
    assert max(batch.student.num_tokens for batch in pairs) == 300 + 250 + 6 * 10
    spread = replace(SHAPE, num_prompts=2, plan=BatchPlan(6, 1, 1)).typical(rows)
    assert [batch.student.num_tokens for batch in spread] == [10 + 250 + 6 * 6]


def test_a_limit_of_tokens_is_filled_better_by_shorter_groups_which_then_are_the_largest():
    rows = [replace(ROW, student=length, teacher=length) for length in (40, 90, 40, 90)]
    shape = replace(SHAPE, num_prompts=2, plan=BatchPlan(6, 1, 1, max_tokens=145))
    assert max(batch.student.num_tokens for batch in shape.largest(rows)) == 2 * (40 + 3 * 10)
    assert max(batch.student.num_tokens for batch in shape.largest(rows[1::2])) == 90 + 3 * 10


def test_samples_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ConfigError, match="multiple of batch_size x processes = 5 x 1"):
        replace(SHAPE, plan=BatchPlan(5, 1, 1)).typical([ROW])


def test_processes_share_a_step():
    batches = replace(SHAPE, plan=BatchPlan(3, 1, 2)).typical([ROW])
    assert [batch.num_sequences for batch in batches] == [3] * 4
