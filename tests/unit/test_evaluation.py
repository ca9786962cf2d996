import math

import pytest

from caopd.errors import ConfigError
from caopd.evaluation import EvaluationBatch, EvaluationBatches, EvaluationConfig, ScoredCompletion
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedRollout,
)


def completed(example):
    """A completion that names its example."""
    rollout = Rollout((1,), f"completion of {example.id}", StopReason.EOS, (-1.0,), 0)
    return VerifiedRollout(
        rollout,
        Verdict(int(example.id) % 2 == 0, "A", AnswerOutcome.PARSED),
        ConfidenceReading(None, None, ConfidenceOutcome.MISSING),
    )


def examples_of(number):
    return [Example(str(n), "Q", "A") for n in range(number)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("number", [0, 1, 2, 7, 10, 12])
def test_every_example_is_completed_once_in_equally_many_batches(world_size, batch_size, number):
    calls = [0] * world_size

    def complete_as(rank):
        def complete(examples):
            calls[rank] += 1
            assert 0 < len(examples) <= batch_size
            return [completed(example) for example in examples]

        return complete

    ranks = []
    for rank in range(world_size):
        batches = EvaluationBatches(examples_of(number), complete_as(rank), batch_size, rank, world_size)
        ranks.append(list(batches))
        assert len(ranks[-1]) == len(batches)
    assert len({len(batches) for batches in ranks}) == 1
    assert calls == [len(batches) for batches in ranks], "generation is collective: all take part every time"
    # Batch by batch, process by process is the order of the data: what writers rely on.
    in_order = [c for batch_of_ranks in zip(*ranks, strict=True) for b in batch_of_ranks for c in b.completions]
    assert [completion.example.id for completion in in_order] == [str(n) for n in range(number)]
    for completion in in_order:
        assert completion.verified.rollout.text == f"completion of {completion.example.id}"


def test_nothing_is_completed_before_it_is_asked_for():
    seen = []

    def complete(examples):
        seen.extend(example.id for example in examples)
        return [completed(example) for example in examples]

    batches = iter(EvaluationBatches(examples_of(5), complete, 2, 0, 1))
    assert seen == []
    next(batches)
    assert seen == ["0", "1"]


def test_a_missing_confidence_is_nan_and_not_zero():
    def scored(value, correct, outcome):
        reading = ConfidenceReading(value, None, ConfidenceOutcome.DECIMAL)
        rollout = Rollout((1,), "", StopReason.EOS, (-1.0,), 0)
        return ScoredCompletion(
            Example("1", "", ""), VerifiedRollout(rollout, Verdict(correct, None, outcome), reading)
        )

    batch = EvaluationBatch(
        [
            scored(0.0, True, AnswerOutcome.PARSED),
            scored(None, False, AnswerOutcome.MALFORMED),
            scored(0.25, False, AnswerOutcome.MISSING),
        ]
    )
    first, second, third = batch.confidence_N.tolist()
    assert (first, third) == (0.0, 0.25)
    assert math.isnan(second)
    assert batch.correct_N.tolist() == [True, False, False]
    assert batch.answered_N.tolist() == [True, False, False]


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"num_examples": 0}])
def test_impossible_sizes_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ConfigError, match=rf"`{name}`.*at least 1.*0"):
        EvaluationConfig(**arguments)


def test_the_evaluation_is_greedy_by_default():
    assert EvaluationConfig().sampling.temperature == 0
