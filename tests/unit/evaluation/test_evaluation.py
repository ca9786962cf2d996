import itertools
import math

import pytest

from caopd.errors import ConfigError
from caopd.evaluation import (
    EvaluationBatch,
    EvaluationBatches,
    EvaluationConfig,
    EvaluationPass,
    SampledConfig,
    ScoredCompletion,
    vote,
)
from caopd.rollouts import Sampling
from caopd.tasks import DrawTask
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
def test_every_example_is_completed_once_in_equally_many_batches(world_size, batch_size):
    for number in (0, 1, 2, 7, 10, 12):
        check_that_every_example_is_completed_once(world_size, batch_size, number)


def check_that_every_example_is_completed_once(world_size, batch_size, number):
    calls = [0] * world_size

    def complete_as(rank):
        def complete(examples):
            calls[rank] += 1
            assert 0 < len(examples) <= batch_size
            return [[completed(example)] for example in examples]

        return complete

    ranks = []
    for rank in range(world_size):
        batches = EvaluationBatches(
            [EvaluationPass(examples_of(number), complete_as(rank))], batch_size, rank, world_size
        )
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
        return [[completed(example)] for example in examples]

    batches = iter(EvaluationBatches([EvaluationPass(examples_of(5), complete)], 2, 0, 1))
    assert seen == []
    next(batches)
    assert seen == ["0", "1"]


def test_the_end_is_told_once_when_the_last_batch_is_complete():
    seen = []

    def complete(examples):
        return [[completed(example)] for example in examples]

    passes = [EvaluationPass(examples_of(number), complete) for number in (3, 1)]
    for batch in EvaluationBatches(passes, 2, 0, 1, on_end=lambda: seen.append("end")):
        seen.append(len(batch.completions))
    assert seen == [2, 1, "end", 1]


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


def test_passes_follow_one_another_and_every_batch_says_whose_it_is():
    def complete(examples):
        return [[completed(example)] * 3 for example in examples]

    own = EvaluationPass(examples_of(3), lambda examples: [[completed(example)] for example in examples])
    other = EvaluationPass(examples_of(5), complete, task="other", in_domain=False, num_samples=3)
    ranks = [list(EvaluationBatches([own, other], 2, rank, 2)) for rank in range(2)]
    assert [len(batch.completions) for batch in ranks[0]] == [2, 6, 3]
    assert [len(batch.completions) for batch in ranks[1]] == [1, 6, 0]
    for batches in ranks:
        assert len(batches) == len(EvaluationBatches([own, other], 2, 0, 2))
        assert [(batch.task, batch.in_domain, batch.num_samples) for batch in batches] == [
            ("", True, None),
            *[("other", False, 3)] * 2,
        ]
        assert [batch.is_headline for batch in batches] == [True, False, False]
        assert all(len(group) == 3 for batch in batches[1:] for group in batch.groups)


def sampled(answers, target, stated=None):
    """Completions of one prompt by their answers, None for one that cannot be read."""
    return [
        VerifiedRollout(
            Rollout((1,), "", StopReason.EOS, (-1.0,), 0),
            Verdict(answer == target, answer, AnswerOutcome.MISSING if answer is None else AnswerOutcome.PARSED),
            ConfidenceReading(value, None, ConfidenceOutcome.DECIMAL),
        )
        for answer, value in zip(answers, stated or [0.5] * len(answers), strict=True)
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_vote_is_that_of_the_first_most_frequent_answer(length):
    """By brute force over all sequences of three answers and an unreadable one."""
    for answers in itertools.product(["A", "B", "C", None], repeat=length):
        found = vote(sampled(answers, target="B"))
        readable = [answer for answer in answers if answer is not None]
        if not readable:
            assert (found.answer, found.correct, found.agreement, found.stated) == (None, False, None, None)
            continue
        best = max(readable.count(answer) for answer in readable)
        winner = next(answer for answer in readable if readable.count(answer) == best)
        assert (found.answer, found.correct) == (winner, winner == "B")
        assert found.agreement == best / length


def test_the_votes_stated_confidence_is_that_of_those_who_agree():
    completions = sampled(["A", "B", None, "B", "B"], "A", [1.0, 0.25, 0.0, None, 0.75])
    assert vote(completions).stated == 0.5
    assert vote(sampled(["A", "A", "B"], "A", [None, None, 1.0])).stated is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 1}, r"`num_samples`.*at least 2.*1.*`sampled` to null"),
        ({"temperature": 0.0}, r"`temperature`.*above 0.*16 greedy"),
    ],
)
def test_several_completions_that_would_be_one_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SampledConfig(**arguments)


@pytest.mark.parametrize("name", ["a/b", "", "two words", "sampled", "in_domain", "mean", "ä"])
def test_a_task_needs_a_name_that_logs_and_files_can_carry(name):
    with pytest.raises(ConfigError, match=r"`data.evaluation.tasks`.*letters"):
        EvaluationConfig(tasks={name: DrawTask()})


def test_tasks_that_are_not_there_cannot_be_validated():
    with pytest.raises(ConfigError, match=r"`data.evaluation.tasks` with `validate_tasks: true`"):
        EvaluationConfig(validate_tasks=True)


def test_several_completions_are_as_long_as_the_one():
    config = EvaluationConfig(Sampling(temperature=0.0, max_new_tokens=7), sampled=SampledConfig(4, 0.6, 0.95))
    assert config.sampling_of_several == Sampling(temperature=0.6, top_p=0.95, max_new_tokens=7)
