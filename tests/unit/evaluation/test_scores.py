"""Scores of an evaluation against scikit-learn and plain sums."""

import random

import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

from caopd.evaluation import EvaluationBatch, EvaluationScores, ScoredCompletion
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


def batches(task="", in_domain=True, num_samples=None, seed=0):
    """Three batches of seven prompts."""
    rng = random.Random(seed)
    for start in range(0, 21, 7):
        numbers = [n for n in range(start, start + 7) for _ in range(num_samples or 1)]
        completions = [completion(rng, n) for n in numbers]
        yield EvaluationBatch(completions, task, in_domain, num_samples)


def scored(*sources):
    scores = EvaluationScores(torch.device("cpu"))
    for batch in sources:
        scores.update(batch)
    return scores


def columns(source):
    every = [each.verified for batch in source for each in batch.completions]
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
    batch = EvaluationBatch([ScoredCompletion(Example("1", "", ""), nothing)] * 2, num_samples=2)
    in_domain, _ = scored(batch).compute()
    assert in_domain["vote"]["accuracy"] == 0
    assert in_domain["vote"]["format_adherence"] == in_domain["vote"]["answer_parse_rate"] == 0


def test_values_are_logged_under_the_tasks_and_the_parts_names():
    source = [*batches(), *batches("other", in_domain=False), *batches("other", in_domain=False, num_samples=2)]
    flat = scored(*source).flat()
    assert {"ece", "other/ece", "other/sampled/pass_at_2", "other/vote/ece", "other/vote_stated/auroc"} <= flat.keys()
    assert not [name for name in flat if "greedy" in name or name.startswith(("sampled", "vote"))]


def test_a_process_without_completions_knows_what_the_others_measure():
    """Metrics are gathered in one order: a batch without completions still announces its task and its kind."""
    scores = scored(EvaluationBatch([], "other", False), EvaluationBatch([], "other", False, 4))
    assert scores.named["other"].sampled is not None
