import itertools
import math

import pytest

from caopd.errors import ConfigError
from caopd.evaluation import (
    EvaluationBatches,
    EvaluationConfig,
    EvaluationPass,
    Event,
    EventCompletions,
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


GREEDY = Event("greedy", Sampling(temperature=0.0))
SAMPLED = Event("sampled", Sampling(), 3)


def examples_of(number):
    return [Example(str(n), "Q", "A") for n in range(number)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_example_is_completed_once_in_equally_many_batches(world_size, batch_size):
    for number in (0, 1, 2, 7, 10, 12):
        check_that_every_example_is_completed_once(world_size, batch_size, number)


def completions_of(batch, event="greedy"):
    return batch.events[event].completions


def check_that_every_example_is_completed_once(world_size, batch_size, number):
    calls = [0] * world_size

    def complete_as(rank):
        def complete(examples, event):
            calls[rank] += 1
            assert event == GREEDY
            assert 0 < len(examples) <= batch_size
            return [[completed(example)] for example in examples]

        return complete

    ranks = []
    for rank in range(world_size):
        batches = EvaluationBatches(
            [EvaluationPass(examples_of(number), complete_as(rank), [GREEDY])], batch_size, rank, world_size
        )
        ranks.append(list(batches))
        assert len(ranks[-1]) == len(batches)
    assert len({len(batches) for batches in ranks}) == 1
    assert calls == [len(batches) for batches in ranks], "generation is collective: all take part every time"
    # Batch by batch, process by process is the order of the data: what writers rely on.
    in_order = [c for batch_of_ranks in zip(*ranks, strict=True) for b in batch_of_ranks for c in completions_of(b)]
    assert [completion.example.id for completion in in_order] == [str(n) for n in range(number)]
    for completion in in_order:
        assert completion.verified.rollout.text == f"completion of {completion.example.id}"


def test_nothing_is_completed_before_it_is_asked_for():
    seen = []

    def complete(examples, event):
        seen.extend(example.id for example in examples)
        return [[completed(example)] for example in examples]

    batches = iter(EvaluationBatches([EvaluationPass(examples_of(5), complete, [GREEDY])], 2, 0, 1))
    assert seen == []
    next(batches)
    assert seen == ["0", "1"]


def test_the_end_is_told_once_when_the_last_batch_is_complete():
    seen = []

    def complete(examples, event):
        return [[completed(example)] for example in examples]

    passes = [EvaluationPass(examples_of(number), complete, [GREEDY]) for number in (3, 1)]
    for batch in EvaluationBatches(passes, 2, 0, 1, on_end=lambda: seen.append("end")):
        seen.append(len(completions_of(batch)))
    assert seen == [2, 1, "end", 1]


def test_a_missing_confidence_is_nan_and_not_zero():
    def scored(value, correct, outcome):
        reading = ConfidenceReading(value, None, ConfidenceOutcome.DECIMAL)
        rollout = Rollout((1,), "", StopReason.EOS, (-1.0,), 0)
        return ScoredCompletion(
            Example("1", "", ""), VerifiedRollout(rollout, Verdict(correct, None, outcome), reading)
        )

    batch = EventCompletions(
        GREEDY,
        [
            scored(0.0, True, AnswerOutcome.PARSED),
            scored(None, False, AnswerOutcome.MALFORMED),
            scored(0.25, False, AnswerOutcome.MISSING),
        ],
    )
    first, second, third = batch.confidence_N.tolist()
    assert (first, third) == (0.0, 0.25)
    assert math.isnan(second)
    assert batch.correct_N.tolist() == [True, False, False]
    assert batch.answered_N.tolist() == [True, False, False]


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"num_examples": 0}, {"max_new_tokens": 0}])
def test_impossible_sizes_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ConfigError, match=rf"`{name}`.*at least 1.*0"):
        EvaluationConfig(**arguments)


def test_both_events_are_measured_by_default_and_the_sampled_one_as_rollouts_are_sampled():
    rollouts = Sampling(temperature=0.7, top_p=0.9, top_k=20, max_new_tokens=40)
    greedy, sampled = EvaluationConfig().events(rollouts)
    assert greedy == Event("greedy", Sampling(temperature=0.0, max_new_tokens=40), 1)
    assert sampled == Event("sampled", rollouts, 1)


def test_the_sampled_event_can_be_left_out_and_drawn_several_times_and_both_are_as_long():
    rollouts = Sampling(top_p=0.9, max_new_tokens=40)
    assert [event.name for event in EvaluationConfig(num_samples=0).events(rollouts)] == ["greedy"]
    greedy, sampled = EvaluationConfig(num_samples=4, max_new_tokens=7).events(rollouts)
    assert (greedy.num_samples, sampled.num_samples) == (1, 4)
    assert (greedy.sampling.max_new_tokens, sampled.sampling) == (7, Sampling(top_p=0.9, max_new_tokens=7))


def test_greedy_rollouts_are_no_sampled_event():
    greedy = Sampling(temperature=0.0)
    with pytest.raises(ConfigError, match=r"`temperature` of `data.sampling` to be above 0.*`num_samples`|num_samples"):
        EvaluationConfig().events(greedy)
    assert [event.name for event in EvaluationConfig(num_samples=0).events(greedy)] == ["greedy"]


def test_fewer_samples_than_none_are_refused():
    with pytest.raises(ConfigError, match=r"`num_samples` of the evaluation.*0 for the greedy ones alone.*-1"):
        EvaluationConfig(num_samples=-1)


def test_every_batch_holds_the_same_prompts_for_every_event_and_says_whose_they_are():
    def complete(examples, event):
        return [[completed(example)] * event.num_samples for example in examples]

    own = EvaluationPass(examples_of(3), complete, [GREEDY])
    other = EvaluationPass(examples_of(5), complete, [GREEDY, SAMPLED], task="other", in_domain=False)
    ranks = [list(EvaluationBatches([own, other], 2, rank, 2)) for rank in range(2)]
    for batches, sizes in zip(ranks, ([2, 2, 1], [1, 2, 0]), strict=True):
        assert len(batches) == len(EvaluationBatches([own, other], 2, 0, 2))
        assert [(batch.task, batch.in_domain, *batch.events) for batch in batches] == [
            ("", True, "greedy"),
            *[("other", False, "greedy", "sampled")] * 2,
        ]
        assert [len(completions_of(batch)) for batch in batches] == sizes
        for batch, size in zip(batches[1:], sizes[1:], strict=True):
            groups = batch.events["sampled"].groups
            assert [len(group) for group in groups] == [3] * size
            prompts = [each.example.id for each in completions_of(batch)]
            assert [each.example.id for each in completions_of(batch, "sampled")[::3]] == prompts


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


@pytest.mark.parametrize("name", ["a/b", "", "two words", "sampled", "in_domain", "mean", "ä"])
def test_a_task_needs_a_name_that_logs_and_files_can_carry(name):
    with pytest.raises(ConfigError, match=r"`data.evaluation.tasks`.*letters"):
        EvaluationConfig(tasks={name: DrawTask()})


def test_tasks_that_are_not_there_cannot_be_validated():
    with pytest.raises(ConfigError, match=r"`data.evaluation.tasks` with `validate_tasks: true`"):
        EvaluationConfig(validate_tasks=True)
