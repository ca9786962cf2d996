"""Scores of an evaluation against scikit-learn and plain sums."""

import math
import random
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

from caopd.evaluation import EvaluationBatch, EvaluationScores, Event, EventCompletions, ScoredCompletion
from caopd.rollouts import Sampling
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

NUM_SAMPLES = 5


def completion(rng, number):
    answer = rng.choice(["A", "A", "B", "C", None])
    stated = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0, None])
    verdict = Verdict(answer == "A", answer, AnswerOutcome.MISSING if answer is None else AnswerOutcome.PARSED)
    reading = ConfidenceReading(stated, None, ConfidenceOutcome.DECIMAL)
    rollout = Rollout((1,), "", StopReason.EOS, (-1.0,), 0)
    return ScoredCompletion(Example(str(number), "Q", "A"), VerifiedRollout(rollout, verdict, reading))


def event_of(num_samples):
    """The greedy event, or the sampled one with so many completions of each prompt."""
    return Event("sampled", Sampling(), num_samples) if num_samples else Event("greedy", Sampling(temperature=0.0))


def batches(task="", in_domain=True, num_samples=None, seed=0):
    """Three batches of seven prompts, with the completions of one event."""
    rng = random.Random(seed)
    event = event_of(num_samples)
    for start in range(0, 21, 7):
        numbers = [n for n in range(start, start + 7) for _ in range(event.num_samples)]
        completions = [completion(rng, n) for n in numbers]
        yield EvaluationBatch({event.name: EventCompletions(event, completions)}, task, in_domain)


def completions_of(batch):
    (completed,) = batch.events.values()
    return completed.completions


def with_completions(batch, completions, num_samples=None):
    return replace(
        batch, events={event.name: EventCompletions(event, completions) for event in [event_of(num_samples)]}
    )


def scored(*sources):
    scores = EvaluationScores(torch.device("cpu"))
    for batch in sources:
        scores.update(batch)
    return scores


def columns(source):
    every = [each.verified for batch in source for each in completions_of(batch)]
    stated = [(each.reading.value, each.verdict.correct) for each in every if each.reading.value is not None]
    return every, [confidence for confidence, _ in stated], [correct for _, correct in stated]


def test_named_tasks_stand_apart_and_those_trained_on_are_pooled():
    a, b = list(batches("a", seed=1)), list(batches("b", seed=2))
    other = list(batches("other", in_domain=False, seed=3))
    in_domain, named = scored(*a, *b, *other).compute()
    for parts, source in ((in_domain, a + b), (named["a"], a), (named["b"], b), (named["other"], other)):
        every, confidence, correct = columns(source)
        assert parts["greedy"]["n"] == len(every)
        assert parts["greedy"]["accuracy"] == pytest.approx(sum(each.verdict.correct for each in every) / len(every))
        assert parts["greedy"]["brier"] == pytest.approx(brier_score_loss(correct, confidence))
        assert parts["greedy"]["auroc"] == pytest.approx(roc_auc_score(correct, confidence))
    assert list(named) == ["a", "b", "other"]


def test_several_completions_of_each_prompt():
    source = list(batches("a", num_samples=NUM_SAMPLES))
    _, named = scored(*batches("a", seed=9), *source).compute()
    every, confidence, correct = columns(source)
    sampled = named["a"]["sampled"]
    assert sampled["n"] == 21 * NUM_SAMPLES
    assert sampled["accuracy"] == pytest.approx(sampled["pass_at_1"])
    assert sampled["brier"] == pytest.approx(brier_score_loss(correct, confidence))
    assert [name for name in sampled if "pass_at" in name] == ["pass_at_1", "pass_at_2", "pass_at_4"]
    agreement, right = [], []
    for start in range(0, len(every), NUM_SAMPLES):
        answers = [each.verdict.answer for each in every[start : start + NUM_SAMPLES] if each.verdict.answer]
        best = max(map(answers.count, answers))
        winner = next(answer for answer in answers if answers.count(answer) == best)
        agreement.append(best / NUM_SAMPLES)
        right.append(winner == "A")
    voted, stated = named["a"]["vote"], named["a"]["vote_stated"]
    assert voted["accuracy"] == stated["accuracy"] == pytest.approx(sum(right) / len(right))
    assert voted["brier"] == pytest.approx(brier_score_loss(right, agreement))
    assert voted["auroc"] == pytest.approx(roc_auc_score(right, agreement))
    assert voted["ocg"] == pytest.approx(sum(agreement) / 21 - sum(right) / 21)
    assert voted["n"] == stated["n"] == 21


def test_a_prompt_without_any_answer_has_no_vote_and_is_not_right():
    nothing = VerifiedRollout(
        Rollout((1,), "", StopReason.EOS, (-1.0,), 0),
        Verdict(False, None, AnswerOutcome.MISSING),
        ConfidenceReading(0.5, None, ConfidenceOutcome.DECIMAL),
    )
    batch = with_completions(EvaluationBatch({}), [ScoredCompletion(Example("1", "", ""), nothing)] * 2, 2)
    in_domain, _ = scored(batch).compute()
    assert in_domain["vote"]["accuracy"] == 0
    assert in_domain["vote"]["format_adherence"] == in_domain["vote"]["answer_parse_rate"] == 0


def test_completions_without_a_verdict_are_counted_and_in_no_metric():
    """One of every prompt's completions has none; the oracle is an evaluation that never sampled it."""
    source = [*batches(), *batches(num_samples=NUM_SAMPLES)]
    with_more, without = [], []
    for batch in source:
        (event,) = (completed.event for completed in batch.events.values())
        size, completions = event.num_samples, completions_of(batch)
        lost = range(0, len(completions), size if size > 1 else 3)
        kept = [each for i, each in enumerate(completions) if i not in lost]
        all_of_them = [
            replace(each, verified=replace(each.verified, verdict=None)) if i in lost else each
            for i, each in enumerate(completions)
        ]
        with_more.append(with_completions(batch, all_of_them, size if size > 1 else None))
        without.append(with_completions(batch, kept, size - 1 if size > 1 else None))
    found, expected = scored(*with_more).compute()[0], scored(*without).compute()[0]
    assert (found["greedy"].pop("n_no_verdict"), found["sampled"].pop("n_no_verdict")) == (9, 21)
    assert (expected["greedy"].pop("n_no_verdict"), expected["sampled"].pop("n_no_verdict")) == (0, 0)
    assert all(math.isnan(found["sampled"].pop(f"pass_at_{k}")) for k in (1, 2, 4))  # these are of all N
    for part, values in found.items():
        for name, value in values.items():
            assert value == pytest.approx(expected[part][name], nan_ok=True), (part, name)


def test_a_whole_prompt_without_a_verdict_has_no_vote_but_pass_at_k_of_the_others():
    (batch, other, _) = batches(num_samples=NUM_SAMPLES)
    lost = [replace(each, verified=replace(each.verified, verdict=None)) for each in completions_of(other)]
    found = scored(batch, with_completions(other, lost, NUM_SAMPLES)).compute()[0]
    expected = scored(batch).compute()[0]
    assert found["sampled"].pop("n_no_verdict") == len(lost)
    assert expected["sampled"].pop("n_no_verdict") == 0
    assert found["vote"] == pytest.approx(expected["vote"], nan_ok=True)
    assert found["sampled"] == pytest.approx(expected["sampled"], nan_ok=True)


def test_one_sampled_completion_of_each_prompt_is_judged_as_the_greedy_one_is():
    """The same completions under both names: only the name tells them apart, and there is no vote of one."""
    drawn = list(batches())
    pairs = [
        replace(batch, events={name: replace(batch.events["greedy"], event=event) for name, event in both.items()})
        for both in [{"greedy": event_of(None), "sampled": event_of(1)}]
        for batch in drawn
    ]
    found = scored(*pairs).compute()[0]
    assert list(found) == ["greedy", "sampled"]
    assert found["greedy"] == pytest.approx(scored(*drawn).compute()[0]["greedy"], nan_ok=True)
    assert found["sampled"] == pytest.approx(found["greedy"], nan_ok=True)


def test_every_value_is_logged_under_the_name_of_its_event():
    source = [*batches(), *batches("other", in_domain=False), *batches("other", in_domain=False, num_samples=2)]
    flat = scored(*source).flat()
    parts = {name.rpartition("/")[0] for name in flat}
    assert parts == {"greedy", "other/greedy", "other/sampled", "other/vote", "other/vote_stated"}
    assert {"greedy/ece", "other/sampled/ece", "other/sampled/pass_at_2", "other/vote_stated/auroc"} <= flat.keys()


def test_a_process_without_completions_knows_what_the_others_measure():
    """Metrics are gathered in one order: a batch without completions still announces its task and its events."""
    scores = scored(*(with_completions(EvaluationBatch({}, "other", False), [], n) for n in (None, 4)))
    assert list(scores.named["other"].events) == ["greedy", "sampled"]
    assert list(scores.named["other"].compute()) == ["greedy", "sampled", "vote", "vote_stated"]


def test_the_forms_of_confidences_and_answers_are_told_apart():
    rows = [
        (0.5, ConfidenceOutcome.DECIMAL, AnswerOutcome.OTHER_FORM),
        (0.5, ConfidenceOutcome.PERCENT, AnswerOutcome.PARSED),
        (None, ConfidenceOutcome.MISSING, AnswerOutcome.MALFORMED),
        (0.5, ConfidenceOutcome.OTHER_FORM, AnswerOutcome.MISSING),
    ]
    rollout = Rollout((1,), "", StopReason.EOS, (-1.0,), 0)
    completions = [
        ScoredCompletion(
            Example("1", "Q", "A"),
            VerifiedRollout(rollout, Verdict(False, None, answer), ConfidenceReading(value, None, confidence)),
        )
        for value, confidence, answer in rows
    ]
    completed = EventCompletions(event_of(0), completions)
    scores = EvaluationScores(torch.device("cpu"))
    scores.update(EvaluationBatch({"greedy": completed}))
    values = scores.flat()
    names = ("format_adherence", "decimal_format", "other_form", "answer_parse_rate", "answer_other_form")
    assert [values[f"greedy/{name}"] for name in names] == [0.75, 0.25, 0.5, 0.5, 0.25]
