import itertools
import random
from dataclasses import replace
from statistics import fmean, pvariance

import pytest

from caopd.errors import ConfigError, DataError
from caopd.methods import SDFT, SDPO, CaOPD, PlainDistillation
from caopd.types import ConfidenceOutcome, Example, TeacherContext

EXAMPLE = Example("7", "Q", "B", demonstration="DEMONSTRATION")
ROLLOUTS = [("B\nConfidence: 1.00", True), ("C\nConfidence: 0.90", False), ("D", False)]
BACKBONES = [SDFT(), SDPO(), SDPO(remove_thinking=False)]
every_backbone = pytest.mark.parametrize("backbone", BACKBONES, ids=["sdft", "sdpo", "sdpo_thinking"])


@every_backbone
@pytest.mark.parametrize("mu_hat", [0.0, 1 / 3, 1.0])
def test_completion_and_context_state_mu_hat_and_the_rest_is_the_backbones(group_of, backbone, mu_hat):
    group = group_of(EXAMPLE, ROLLOUTS, mu_hat)
    plain, calibrated = backbone.train_samples(group), CaOPD(backbone, calibrate_all=False).train_samples(group)
    assert len(calibrated) == len(plain) == 3
    for before, after in zip(plain, calibrated, strict=True):
        assert after.confidence == mu_hat
        assert (after.example, after.rollout, after.weight) == (before.example, before.rollout, before.weight)
        if before.context is None:
            assert after.context is None
        else:
            assert after.context == replace(before.context, confidence=mu_hat, empirical=True)


def test_of_a_group_with_one_success_that_one_has_no_weight_on_sdpo_as_the_paper_has_it(group_of):
    samples = CaOPD(SDPO(), calibrate_all=False).train_samples(group_of(EXAMPLE, ROLLOUTS, 1 / 3))
    assert [sample.weight for sample in samples] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("verdicts", itertools.product([True, False], repeat=3))
def test_without_a_solution_the_confidence_alone_is_taught_under_the_note_alone(group_of, verdicts):
    texts = [text for text, _ in ROLLOUTS]
    group = group_of(EXAMPLE, list(zip(texts, verdicts, strict=True)), sum(verdicts) / 3)
    backbones, samples = SDPO().train_samples(group), CaOPD(SDPO()).train_samples(group)
    for index, (before, sample) in enumerate(zip(backbones, samples, strict=True)):
        assert (sample.weight, sample.confidence) == (1.0, sum(verdicts) / 3)
        if any(correct for other, correct in enumerate(verdicts) if other != index):
            assert sample.body_weight == 1.0
            assert sample.context == replace(before.context, confidence=sample.confidence, empirical=True)
        else:
            assert sample.body_weight == 0.0
            assert sample.context == TeacherContext("solution", None, sample.confidence, empirical=True)


def test_feedback_is_a_context_and_trains_the_whole_completion(group_of):
    group = group_of(EXAMPLE, [("C", False)] * 2, 0.0)
    told = [replace(each, verdict=replace(each.verdict, feedback="no")) for each in group.rollouts]
    for sample in CaOPD(SDPO(feedback=True)).train_samples(replace(group, rollouts=tuple(told))):
        assert sample.context == TeacherContext("solution", None, 0.0, empirical=True, feedback="no")
        assert (sample.weight, sample.body_weight) == (1.0, 1.0)


def test_a_completion_that_ends_within_its_thinking_has_no_confidence_to_train(group_of):
    group = group_of(EXAMPLE, [("C", False)] * 2, 0.0)
    reading = replace(group.rollouts[0].reading, outcome=ConfidenceOutcome.UNFINISHED)
    cut = replace(group, rollouts=(replace(group.rollouts[0], reading=reading), group.rollouts[1]))
    assert [sample.weight for sample in CaOPD(SDPO()).train_samples(cut)] == [0.0, 1.0]


def test_what_a_backbone_trains_without_a_context_stays_as_it_is(group_of):
    """Another model may be the teacher, which sees what the student sees."""
    group = group_of(EXAMPLE, ROLLOUTS, 1 / 3)
    for sample in CaOPD(PlainDistillation()).train_samples(group):
        assert (sample.context, sample.weight, sample.body_weight) == (None, 1.0, 1.0)


@pytest.mark.parametrize(("gain", "taught"), [(1.0, 0.25), (0.5, 0.6), (0.2, 0.81)])
def test_gain_is_how_far_the_taught_confidence_is_from_what_is_stated(group_of, gain, taught):
    """1.00 and 0.90 are stated, 0.95 on average; the third states nothing."""
    samples = CaOPD(SDFT(), gain=gain).train_samples(group_of(EXAMPLE, ROLLOUTS, 0.25))
    assert [sample.confidence for sample in samples] == pytest.approx([taught] * 3)
    assert [sample.context.confidence for sample in samples] == pytest.approx([taught] * 3)


def test_a_group_that_states_nothing_is_taught_mu_hat_whatever_the_gain(group_of):
    samples = CaOPD(SDFT(), gain=0.1).train_samples(group_of(EXAMPLE, [("B", True), ("C", False)], 0.5))
    assert [sample.confidence for sample in samples] == [0.5, 0.5]


@pytest.mark.parametrize("gain", [1.0, 0.5, 0.25])
def test_what_a_student_comes_to_state_has_the_mean_of_mu_hat_and_less_scatter_for_a_smaller_gain(group_of, gain):
    """A student that states what it was last taught, by prompts of success .1, .3 and .8 that look the same to it.

    Taught is t = c + g (m - c), c a mean of G = 4 draws of what was taught and m independent of it, so the fixed point
    has E t = E m and var t = g^2 var m / (1 - (1 - g)^2 / G).
    """
    rng, method = random.Random(0), CaOPD(SDFT(), gain=gain)
    taught, estimates = [1.0] * 500, []
    for round_number in range(60):
        rates = [rng.choice([0.1, 0.3, 0.8]) for _ in range(500)]
        mu_hats = [sum(rng.random() < rate for _ in range(4)) / 4 for rate in rates]
        stated = [[f"B\nConfidence: {rng.choice(taught)}" for _ in range(4)] for _ in range(500)]
        groups = [
            group_of(EXAMPLE, [(text, True) for text in texts], mu) for texts, mu in zip(stated, mu_hats, strict=True)
        ]
        taught = [method.train_samples(group)[0].confidence for group in groups]
        estimates += [(mu, each) for mu, each in zip(mu_hats, taught, strict=True)] if round_number >= 40 else []
    mu_hats, settled = zip(*estimates, strict=True)
    assert fmean(settled) == pytest.approx(0.4, abs=0.01)
    assert pvariance(settled) == pytest.approx(gain**2 * pvariance(mu_hats) / (1 - (1 - gain) ** 2 / 4), rel=0.05)


@every_backbone
def test_without_an_estimate_nothing_has_weight(group_of, backbone):
    samples = CaOPD(backbone).train_samples(group_of(EXAMPLE, ROLLOUTS, mu_hat=None))
    assert [sample.weight for sample in samples] == [0.0, 0.0, 0.0]
    assert [sample.confidence for sample in samples] == [None, None, None]


@every_backbone
def test_a_rollout_with_an_estimate_of_its_own_states_that(group_of, backbone):
    group = replace(group_of(EXAMPLE, ROLLOUTS), mu_hats=(0.0, 0.5, 0.25))
    samples = CaOPD(backbone).train_samples(group)
    assert [sample.confidence for sample in samples] == [0.0, 0.5, 0.25]
    assert all(sample.context.confidence == sample.confidence for sample in samples if sample.context)


@every_backbone
@pytest.mark.parametrize(
    ("num_levels", "stated"),
    [(2, [0.0, 1.0, 1.0]), (3, [0.0, 0.5, 1.0]), (9, [0.25, 0.625, 0.875]), (None, [0.24, 0.61, 0.9])],
)
def test_levels_round_what_is_stated_and_not_what_is_measured(group_of, backbone, num_levels, stated):
    group = replace(group_of(EXAMPLE, ROLLOUTS), mu_hats=(0.24, 0.61, 0.9))
    samples = CaOPD(backbone, num_levels).train_samples(group)
    assert [sample.confidence for sample in samples] == stated
    assert all(sample.context.confidence == sample.confidence for sample in samples if sample.context)
    assert group.mu_hats == (0.24, 0.61, 0.9)


def test_one_level_is_refused():
    with pytest.raises(ConfigError, match=r"`num_levels`.*at least 2.*got 1"):
        CaOPD(num_levels=1)


@every_backbone
@pytest.mark.parametrize("weight", [0.0, 0.2, 3.0])
def test_the_body_has_the_weight_asked_for_where_it_is_taught(group_of, backbone, weight):
    plain = CaOPD(backbone).train_samples(group_of(EXAMPLE, ROLLOUTS, 1 / 3))
    weighted = CaOPD(backbone, body_weight=weight).train_samples(group_of(EXAMPLE, ROLLOUTS, 1 / 3))
    assert {sample.body_weight for sample in plain} <= {0.0, 1.0}
    assert weighted == [replace(sample, body_weight=sample.body_weight * weight) for sample in plain]


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_an_impossible_weight_of_the_body_is_refused(weight):
    with pytest.raises(ConfigError, match=f"`body_weight` of CaOPD to be 0 or larger, but got {weight}"):
        CaOPD(body_weight=weight)


@pytest.mark.parametrize("gain", [0.0, -0.5, 1.01, float("nan")])
def test_a_gain_that_teaches_nothing_of_mu_hat_or_more_than_it_is_refused(gain):
    with pytest.raises(ConfigError, match=rf"`gain` of CaOPD to be in \(0, 1\], but got {gain}"):
        CaOPD(gain=gain)


def test_the_paper_default_is_on_sdft():
    assert CaOPD().backbone == SDFT()


def test_the_known_context_has_the_note():
    assert CaOPD(SDFT()).known_context(EXAMPLE) == TeacherContext("demonstration", "DEMONSTRATION", 1.0, empirical=True)
    assert CaOPD(SDPO()).known_context(EXAMPLE) is None


def test_what_the_backbone_needs_is_needed():
    assert CaOPD(SDPO()).min_rollouts == 2
    assert CaOPD(SDFT()).min_rollouts == 1
    with pytest.raises(DataError, match="demonstration"):
        CaOPD(SDFT()).check_example(Example("1", "Q", "B"))
    CaOPD(SDPO()).check_example(Example("1", "Q", "B"))
