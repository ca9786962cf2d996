import pytest

from caopd.methods import CAR, GRPO, RLCR, SDFT, SDPO, SFT, CaOPD, PlainDistillation
from caopd.types import Example

EXAMPLE = Example("7", "Q", "B", demonstration="DEMONSTRATION")


@pytest.mark.parametrize("rollouts_of", ["student", "teacher"])
def test_every_rollout_is_trained_on_as_sampled_right_or_wrong(group_of, rollouts_of):
    group = group_of(EXAMPLE, [("B\nConfidence: 0.90", True), ("C", False)], 0.5)
    samples = PlainDistillation(rollouts_of=rollouts_of).train_samples(group)
    assert [sample.rollout for sample in samples] == list(group.rollouts)
    for sample in samples:
        assert (sample.context, sample.confidence, sample.weight) == (None, None, 1.0)


def test_it_alone_needs_another_model_and_samples_from_it_on_request():
    others = [SDFT(), SDPO(), CaOPD(), SFT(), GRPO(), RLCR(), CAR()]
    assert {method.rollouts_of for method in [*others, PlainDistillation()]} == {"student"}
    assert PlainDistillation(rollouts_of="teacher").rollouts_of == "teacher"
    assert all(method.privileged for method in others)
    assert not PlainDistillation().privileged
