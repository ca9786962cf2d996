"""The study of what CaOPD on SDPO teaches: enumeration against brute force and simulation, its task and its tables."""

import itertools
import random
from collections import Counter
from math import prod
from statistics import fmean

import pytest

from caopd.tasks import DrawTask
from caopd.tasks.draw import KINDS
from targeting.copying import copied
from targeting.enumeration import RATES, SIZES, group, taught
from targeting.forms import ALL, FORMS, LITERAL, UNSOLVED
from targeting.hard_draws import HARD, HardDraws
from targeting.page import interval, page
from targeting.training import LOGGED, PARTS, calibration, training_run


def brute_force(form, rate, size):
    """Over every sequence of verdicts, rollout by rollout, from the rule alone."""
    total = weight = 0.0
    for verdicts in itertools.product([0, 1], repeat=size):
        probability = prod(rate if right else 1 - rate for right in verdicts)
        for own in verdicts:
            has_solution = sum(verdicts) - own > 0
            if has_solution or form == ALL or (form == UNSOLVED and not sum(verdicts)):
                total += probability * sum(verdicts) / size
                weight += probability
    return total / weight, weight / size


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [2, 3, 8])
def test_what_is_taught_is_what_brute_force_finds(form, size):
    for rate in (0.05, 0.3, 0.9):
        assert taught(FORMS[form], rate, size) == pytest.approx(brute_force(form, rate, size))


@pytest.mark.parametrize(("rate", "mean"), [(0.01, 0.130), (0.05, 0.151), (0.1, 0.180), (0.2, 0.246), (0.5, 0.503)])
def test_the_literal_form_teaches_too_much_and_teaching_all_rollouts_is_unbiased(rate, mean):
    assert taught(FORMS[LITERAL], rate, 8)[0] == pytest.approx(mean, abs=0.0005)
    assert taught(FORMS[ALL], rate, 8) == pytest.approx((rate, 1.0))
    assert abs(taught(FORMS[UNSOLVED], rate, 8)[0] - rate) < 0.005


def test_training_one_rollout_of_a_group_teaches_the_same_on_average():
    rng, rate, size = random.Random(0), 0.2, 4
    firsts = [FORMS[LITERAL].train_samples(group([rng.random() < rate for _ in range(size)]))[0] for _ in range(20_000)]
    mean, share = taught(FORMS[LITERAL], rate, size)
    assert fmean(each.confidence for each in firsts if each.weight) == pytest.approx(mean, abs=0.01)
    assert fmean(each.weight for each in firsts) == pytest.approx(share, abs=0.01)


def test_hard_questions_list_nothing_that_fits_and_any_digit_was_drawn():
    task = HardDraws(num_train=3000, num_validation=100)
    examples = task.examples("train")
    hard = [each for each in examples if each.category == HARD]
    assert len({each.id for each in examples}) == 3000
    assert len(hard) == pytest.approx(900, abs=80)
    for each in hard:
        kind, listed, _ = each.id.split("-")
        assert each.question == f"Which {kind} digit was drawn from {listed}?"
        assert not any(KINDS[kind](int(digit)) for digit in listed)
    drawn = Counter(each.target for each in hard)
    assert set(drawn) == set("0123456789")
    assert max(drawn.values()) < 130
    others = DrawTask(num_train=3000).examples("train")
    assert [e for e in examples if e.category != HARD] == [
        other for other, e in zip(others, examples, strict=True) if e.category != HARD
    ]
    assert task.examples("train") == examples


def test_calibration_is_of_the_questions_that_are_asked_for(group_of):
    hard = group_of(DrawTask(num_train=1).examples("train")[0], [("1\nConfidence: 0.90", False), ("1", True)])
    easy = group_of(
        HardDraws(num_train=1, hard_share=0.0, seed=1).examples("train")[0], [("1\nConfidence: 0.50", True)]
    )
    kinds = (hard.example.category,)
    assert kinds != (easy.example.category,)
    expected = {"format_adherence": 0.5, "success": 0.0, "confidence": 0.9, "gap": 0.9, "ece": 0.9, "brier": 0.81}
    assert calibration([hard, easy], kinds) == pytest.approx(expected)
    assert calibration([hard, easy], None)["success"] == 0.5


def test_the_embedded_teacher_copies_the_note_with_and_without_a_solution():
    shares = copied()
    assert set(shares) == {"solution and note", "note alone"}
    assert min(shares.values()) > 0.99


def test_every_form_is_a_run_of_its_own():
    runs = [training_run(form, 8, 10, 11) for form in FORMS]
    assert len({run.fingerprint for run in runs}) == len({run.name for run in runs}) == 3


def test_the_page_has_every_form_and_pairs_by_seed():
    def run(form, seed, gap):
        part = {"format_adherence": 1.0, "success": 0.1, "confidence": 0.1 + gap, "gap": gap, "ece": gap, "brier": 0.2}
        logged = dict.fromkeys(LOGGED, 0.25)
        kept = {"form": form, "num_rollouts": 8, "seed": seed, "cpu_seconds": 60.0}
        return kept | {"parts": dict.fromkeys(PARTS, part), "logged": logged}

    gaps = {LITERAL: 0.3, UNSOLVED: 0.1, ALL: 0.0}
    runs = [run(form, seed, gap + seed / 100) for form, gap in gaps.items() for seed in (1, 2)]
    rows = [
        {"form": form, "num_rollouts": size, "rate": rate, "mean": rate, "share": 1.0}
        for size in SIZES
        for rate in RATES
        for form in FORMS
    ]
    machine = {"versions": {"caopd": "1"}, "timestamp": "2026-01-01T", "cpus": 2, "processes": 2}
    record = {"environment": machine, "num_rounds": 5, "taught": rows, "copied": {"note alone": 0.5}, "runs": runs}
    text = page(record)
    assert "note alone 0.500" in text
    assert "| hard | all rollouts | -0.300 [-0.300, -0.300] | -0.300 [-0.300, -0.300] |" in text
    assert "| hard | literal | 2 | 0.100 ± 0.000 |" in text
    assert page({**record, "runs": []}).count("### G") == len(SIZES)


def test_intervals_are_students():
    """Of two values: mean ± 12.706 times half their distance."""
    assert interval([0.1, 0.3]) == "+0.200 [-1.071, +1.471]"
    assert interval([0.25]) == "+0.250"
