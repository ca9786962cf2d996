from dataclasses import replace

import pytest

from caopd.errors import ConfigError, DataError
from caopd.methods import SDFT, SDPO, CaOPD
from caopd.types import Example, TeacherContext

EXAMPLE = Example("7", "Q", "B", demonstration="DEMONSTRATION")
ROLLOUTS = [("B\nConfidence: 1.00", True), ("C\nConfidence: 0.90", False), ("D", False)]
BACKBONES = [SDFT(), SDPO(), SDPO(remove_thinking=False)]
every_backbone = pytest.mark.parametrize("backbone", BACKBONES, ids=["sdft", "sdpo", "sdpo_thinking"])


@every_backbone
@pytest.mark.parametrize("mu_hat", [0.0, 1 / 3, 1.0])
def test_completion_and_context_state_mu_hat_and_the_rest_is_the_backbones(group_of, backbone, mu_hat):
    group = group_of(EXAMPLE, ROLLOUTS, mu_hat)
    plain, calibrated = backbone.train_samples(group), CaOPD(backbone).train_samples(group)
    assert len(calibrated) == len(plain) == 3
    for before, after in zip(plain, calibrated, strict=True):
        assert after.confidence == mu_hat
        assert (after.example, after.rollout, after.weight) == (before.example, before.rollout, before.weight)
        if before.context is None:
            assert after.context is None
        else:
            assert after.context == replace(before.context, confidence=mu_hat, empirical=True)


def test_of_a_group_with_one_success_that_one_has_no_weight_on_sdpo(group_of):
    samples = CaOPD(SDPO()).train_samples(group_of(EXAMPLE, ROLLOUTS, 1 / 3))
    assert [sample.weight for sample in samples] == [0.0, 1.0, 1.0]


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
