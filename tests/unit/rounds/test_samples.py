from dataclasses import replace

import pytest

from caopd.errors import DataError, UserCodeError
from caopd.methods import GRPO, SDFT, SDPO, CaOPD, PlainDistillation
from caopd.methods.grpo import group_advantages
from caopd.rounds.samples import probed_context, train_samples
from caopd.types import Example

EXAMPLE = Example("1", "Q", "B", demonstration="DEMONSTRATION")


class Forgets(SDFT):
    """Makes no sample of wrong rollouts."""

    def train_samples(self, group):
        return [sample for sample in super().train_samples(group) if sample.rollout.verdict.correct]


class Opens(SDFT):
    """Needs a file."""

    def train_samples(self, group):
        raise PermissionError("solutions.txt")


def test_a_method_that_returns_or_raises_something_else_is_named(group_of):
    group = group_of(EXAMPLE, [("B", True), ("C", False)])
    assert train_samples(SDFT(), group) == SDFT().train_samples(group)
    with pytest.raises(DataError, match=r"test_samples\.Forgets to make 2 TrainSamples of example '1'.*weight 0"):
        train_samples(Forgets(), group)
    with pytest.raises(
        UserCodeError, match=r"test_samples\.Opens .*example '1'.* PermissionError: solutions\.txt"
    ) as error:
        train_samples(Opens(), group)
    assert isinstance(error.value.__cause__, PermissionError)


TEXTS = [("B", True), ("C", False), ("B", True), ("D", False)]


@pytest.fixture
def partly(group_of):
    """Four rollouts: the first, which is right, and the last have no verdict."""
    group = group_of(EXAMPLE, TEXTS, mu_hat=0.5)
    rollouts = [replace(each, verdict=None) if i in (0, 3) else each for i, each in enumerate(group.rollouts)]
    return replace(group, rollouts=tuple(rollouts), mu_hats=(None, 0.5, 0.5, None))


@pytest.mark.parametrize("method", [SDFT(), CaOPD(SDFT()), SDPO(), CaOPD(SDPO()), GRPO(), PlainDistillation()])
def test_rollouts_without_a_verdict_keep_their_place_and_have_no_weight(method, partly):
    samples = train_samples(method, partly)
    assert [sample.rollout for sample in samples] == list(partly.rollouts)
    assert (samples[0].weight, samples[3].weight) == (0, 0)
    assert samples[1:3] == method.train_samples(replace(partly, rollouts=partly.rollouts[1:3], mu_hats=(0.5, 0.5)))
    assert all(sample.advantage == 0 for sample in (samples[0], samples[3]))  # 0 times NaN would be NaN


def test_advantages_are_over_the_rollouts_that_have_a_verdict(partly):
    assert [sample.advantage for sample in train_samples(GRPO(), partly)][1:3] == group_advantages([0.0, 1.0], True)


@pytest.mark.parametrize(("method", "weights"), [(SDFT(), [0, 1]), (SDPO(), [0, 0]), (GRPO(), [0, 0])])
def test_a_group_with_fewer_verdicts_than_the_method_needs_is_not_trained_on(method, weights, group_of):
    group = group_of(EXAMPLE, TEXTS[:2])
    group = replace(group, rollouts=(replace(group.rollouts[0], verdict=None), group.rollouts[1]))
    assert [sample.weight for sample in train_samples(method, group)] == weights


def test_a_group_without_any_verdict_is_not_shown_to_the_method(group_of):
    group = group_of(EXAMPLE, TEXTS[:2])
    group = replace(group, rollouts=tuple(replace(each, verdict=None) for each in group.rollouts))
    assert [sample.weight for sample in train_samples(Opens(), group)] == [0, 0]


def test_a_probe_sees_a_context_that_trains_whole_completions_if_there_is_one(group_of):
    """The only success of a group has no solution, and comes first."""
    shown = {}
    for verdicts in ((True, False), (False, False)):
        samples = train_samples(CaOPD(SDPO()), group_of(EXAMPLE, [("B", right) for right in verdicts], 0.5))
        shown[verdicts] = probed_context(samples)
        assert samples[0].context.response is None
    assert shown[True, False].response == "B"
    assert shown[False, False] == samples[0].context
    assert probed_context(train_samples(GRPO(), group_of(EXAMPLE, [("B", True), ("C", False)]))) is None
