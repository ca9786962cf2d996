import warnings

import pytest

from caopd.errors import ConfigError
from caopd.losses import (
    LOSSES,
    CrossEntropyLoss,
    DistillationLoss,
    ImportanceSampling,
    PolicyGradientLoss,
    VOPDLoss,
)
from caopd.methods import CAR, GRPO, RLCR, SDFT, SDPO, SFT, CaOPD, PlainDistillation
from caopd.models import EMA, External, Frozen, TrustRegion
from caopd.training.module import DistillationModule
from caopd.types import Signal

EXPECTED = [
    *((method, DistillationLoss) for method in (SDFT(), SDPO(), CaOPD())),
    *((method, PolicyGradientLoss) for method in (GRPO(), RLCR(), CAR())),
    (SFT(), CrossEntropyLoss),
]
every_method = pytest.mark.parametrize(("method", "expected"), EXPECTED, ids=lambda value: type(value).__name__)


def test_every_signal_has_a_loss_that_is_for_it():
    assert set(LOSSES) == set(Signal)
    assert {loss.signal for loss in LOSSES.values()} == set(Signal)


@every_method
def test_the_methods_signal_chooses_the_loss(method, expected):
    assert type(DistillationModule(method=method).loss) is expected


@every_method
def test_a_loss_for_the_methods_samples_is_taken_as_it_is(method, expected):
    loss = expected(chunk_size=7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DistillationModule(method=method, loss=loss).loss is loss


@every_method
@pytest.mark.parametrize("given", LOSSES.values())
def test_a_loss_for_other_samples_is_left_aside_with_a_warning(method, expected, given):
    if given is expected:
        return
    with pytest.warns(UserWarning, match=rf"{given.__name__}.*{type(method).__name__}.*{expected.__name__}"):
        module = DistillationModule(method=method, loss=given(chunk_size=7))
    assert type(module.loss) is expected
    assert module.loss.chunk_size != 7


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, EMA(0.01)),
        ({"teacher": EMA(0.3)}, EMA(0.3)),
        ({"teacher": Frozen()}, Frozen()),
        ({"teacher": TrustRegion(0.2)}, TrustRegion(0.2)),
    ],
)
def test_the_teacher_is_a_moving_average_unless_another_is_named(settings, expected):
    assert DistillationModule(**settings).teacher_rule == expected


def test_the_reference_of_a_policy_gradient_is_frozen_and_a_moving_one_gives_a_warning(recwarn):
    loss = PolicyGradientLoss(kl_coefficient=0.1)
    assert DistillationModule(method=GRPO(), loss=loss).teacher_rule == Frozen()
    for fixed in ({"teacher": EMA(0.0)}, {"teacher": Frozen()}, {"teacher": External()}):
        DistillationModule(method=GRPO(), loss=loss, **fixed)
    DistillationModule(method=GRPO(), teacher=EMA(0.1))  # without a divergence there is no reference
    assert not recwarn
    for moving in ({"teacher": EMA(0.1)}, {"teacher": TrustRegion()}):
        with pytest.warns(UserWarning, match=r"reference of GRPO follows.*`model.teacher` to Frozen"):
            DistillationModule(method=GRPO(), loss=loss, **moving)


def test_a_teacher_that_sees_no_more_must_be_another_model():
    for settings in ({}, {"teacher": Frozen()}):
        with pytest.raises(ConfigError, match=r"PlainDistillation.*External"):
            DistillationModule(method=PlainDistillation(), **settings)
    assert DistillationModule(method=PlainDistillation(), teacher=External()).teacher_rule == External()
    assert DistillationModule(method=SDFT(), teacher=External()).teacher_rule == External()


def test_completions_of_the_teacher_are_no_samples_of_the_student():
    for loss in (VOPDLoss(), DistillationLoss(importance_sampling=ImportanceSampling())):
        assert DistillationModule(method=PlainDistillation(), teacher=External(), loss=loss).loss is loss
        with pytest.raises(ConfigError, match=r"PlainDistillation samples them from the teacher"):
            DistillationModule(method=PlainDistillation(rollouts_of="teacher"), teacher=External(), loss=loss)
