"""A student that states exactly how often its samples are right, judged by both events: closed form and simulation.

A graded question has four options. The student draws its answer from a distribution over them and states, whatever it
has drawn, the probability of the right one: mu. Its sampled completions are perfectly calibrated. Its greedy completion
is the most likely option, which is right always or never: judged by it, the same confidences look wrong.
"""

import math
import random

import pytest
import torch

from caopd.evaluation import EvaluationBatch, EvaluationScores, Event, EventCompletions, ScoredCompletion
from caopd.metrics.functional import expected_calibration_error
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

QUESTIONS = {
    "easy": [
        ((0.9, 0.06, 0.02, 0.02), 5),
        ((0.75, 0.15, 0.05, 0.05), 2),
        ((0.35, 0.45, 0.1, 0.1), 2),
        ((0.1, 0.7, 0.1, 0.1), 1),
    ],
    "middling": [
        ((0.85, 0.05, 0.05, 0.05), 4),
        ((0.55, 0.25, 0.1, 0.1), 2),
        ((0.25, 0.45, 0.2, 0.1), 2),
        ((0.15, 0.65, 0.1, 0.1), 2),
    ],
    "hard": [
        ((0.8, 0.1, 0.05, 0.05), 2),
        ((0.65, 0.15, 0.1, 0.1), 3),
        ((0.45, 0.25, 0.2, 0.1), 2),
        ((0.25, 0.45, 0.2, 0.1), 2),
        ((0.15, 0.55, 0.2, 0.1), 1),
    ],
}
"""Set -> probabilities of the options, the right one first -> how many questions of ten are such."""
GREEDY = {"easy": (0.18, -0.02), "middling": (0.23, -0.07), "hard": (0.32, -0.19)}
"""Set -> ECE and overconfidence gap of greedy completions, by hand."""
EVENTS = {"greedy": Event("greedy", Sampling(temperature=0.0)), "sampled": Event("sampled", Sampling())}


def completion(option, stated):
    verdict = Verdict(option == 0, "ABCD"[option], AnswerOutcome.PARSED)
    reading = ConfidenceReading(stated, None, ConfidenceOutcome.DECIMAL)
    rollout = Rollout((1,), "", StopReason.EOS, (-1.0,), 0)
    return ScoredCompletion(Example("1", "Q", "A"), VerifiedRollout(rollout, verdict, reading))


def closed_form(questions):
    """The ECE and the gap of either event, bin by bin: every distinct mu has a bin of its own."""
    total = sum(number for _, number in questions)
    gaps = {event: [] for event in EVENTS}
    for shares, number in questions:
        expected = {"greedy": float(max(range(4), key=shares.__getitem__) == 0), "sampled": shares[0]}
        for event, accuracy in expected.items():
            gaps[event].append((number / total, shares[0] - accuracy))
    return {
        event: (sum(share * abs(gap) for share, gap in each), sum(share * gap for share, gap in each))
        for event, each in gaps.items()
    }


def measured(questions, repeats, seed=0):
    rng, scores = random.Random(seed), EvaluationScores(torch.device("cpu"))
    for shares, number in questions * repeats:
        drawn = {
            "greedy": [max(range(4), key=shares.__getitem__)] * number,
            "sampled": rng.choices(range(4), shares, k=number),
        }
        completions = {name: [completion(option, shares[0]) for option in options] for name, options in drawn.items()}
        scores.update(
            EvaluationBatch({name: EventCompletions(EVENTS[name], each) for name, each in completions.items()})
        )
    return scores.compute()[0]


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_perfect_student_is_calibrated_in_the_sampled_event_and_underconfident_in_the_greedy_one(name):
    expected = closed_form(QUESTIONS[name])
    assert expected["sampled"] == (0, 0)
    assert expected["greedy"] == pytest.approx(GREEDY[name])
    found = measured(QUESTIONS[name], repeats=200)  # 2,000 questions: an ECE of .02 is noise
    assert found["greedy"]["ece"] == pytest.approx(expected["greedy"][0], abs=1e-6)
    assert found["greedy"]["ocg"] == pytest.approx(expected["greedy"][1], abs=1e-6)
    assert found["sampled"]["ece"] < 0.03
    assert abs(found["sampled"]["ocg"]) < 0.03
    assert found["greedy"]["mean_confidence"] == pytest.approx(found["sampled"]["mean_confidence"])


def test_equally_likely_answers_hide_it():
    """Of e equally likely answers the greedy one is right for one e-th of the questions: both events agree."""
    confidence, correct = [], []
    for e in (1, 2, 3, 4, 5):
        for question in range(60):
            confidence.append(1 / e)
            correct.append(question % e == 0)
    assert float(expected_calibration_error(torch.tensor(confidence), torch.tensor(correct).int())) < 1e-6


def test_a_student_that_states_mu_hat_as_it_was_taught_has_an_error_in_its_samples():
    """On the embedded task, groups of 8: each value that mu_hat takes, as often as groups of the question have it."""
    sizes = [int(example.category.removeprefix("e=")) for example in DrawTask().examples("validation")]
    stated, right, weight = [], [], []
    for e in set(sizes):
        for successes in range(9):
            chance = sizes.count(e) / len(sizes) * math.comb(8, successes) * (1 / e) ** successes
            stated.append(successes / 8)
            right.append(1 / e)
            weight.append(chance * (1 - 1 / e) ** (8 - successes))
    bins = {}
    for value, rate, share in zip(stated, right, weight, strict=True):
        bins.setdefault(max(math.ceil(value * 10), 1), []).append(share * (value - rate))
    assert sum(weight) == pytest.approx(1)
    assert sum(map(sum, bins.values())) == pytest.approx(0)
    assert sum(abs(sum(each)) for each in bins.values()) == pytest.approx(0.07, abs=0.005)
    terms = zip(stated, right, weight, strict=True)
    brier = sum(share * (rate * (1 - value) ** 2 + (1 - rate) * value**2) for value, rate, share in terms)
    assert brier == pytest.approx(0.15, abs=0.005)
