import itertools
from dataclasses import replace

import pytest

from caopd.confidence import InlineConfidence
from caopd.rounds.round import Round
from caopd.training.collapse import CopyWatch, FormatWatch, ShownSegment, copying_score
from caopd.types import (
    AnswerOutcome,
    Example,
    Rollout,
    StopReason,
    TrainSample,
    Verdict,
    VerifiedGroup,
    VerifiedRollout,
)

EXAMPLE = Example("1", "Q", "A")


def segments(*pairs):
    """(value, number, how many of these are copied), as segments."""
    return [ShownSegment((value,), index < copied, False) for value, number, copied in pairs for index in range(number)]


@pytest.mark.parametrize("sizes", [(5, 1), (1, 1, 1), (90, 5, 3, 2)])
def test_a_teacher_that_does_not_read_its_context_scores_at_most_zero_whatever_it_states(sizes):
    """By enumeration of what it states for each segment, with probabilities that are the same for all."""
    values, total = range(len(sizes)), sum(sizes)
    for favourite in (*values, None):  # always one value, or another one altogether
        counts = {value: (size, size if value == favourite else 0) for value, size in enumerate(sizes)}
        assert copying_score(counts) <= 1e-12
    if total > 8:
        return
    for weights in ((0.7, 0.3), (0.5, 0.1)):
        probability = dict(enumerate((*weights, *[0.0] * len(sizes))))
        wanted = [value for value, size in enumerate(sizes) for _ in range(size)]
        mean = 0.0
        for copied in itertools.product([True, False], repeat=total):
            chance, counts = 1.0, {value: (size, 0) for value, size in enumerate(sizes)}
            for value, right in zip(wanted, copied, strict=True):
                chance *= probability[value] if right else 1 - probability[value]
                counts[value] = (counts[value][0], counts[value][1] + right)
            mean += chance * copying_score(counts)
        assert mean <= 1e-12


def test_the_score_of_a_teacher_that_copies():
    assert copying_score({(1,): (9, 9), (2,): (1, 1)}) == 1
    assert copying_score({(1,): (10, 10), (2,): (10, 5)}) == pytest.approx(0.5)
    assert copying_score({(1,): (10, 7)}) == pytest.approx(0.7)


def test_a_teacher_that_copies_nothing_is_told_of_once(recwarn):
    watch = CopyWatch()
    watch.add(segments(("a", 15, 15), ("b", 2, 0)))
    watch.end_round(0)  # too few to say
    watch.add(segments(("a", 15, 12), ("b", 10, 8)))
    watch.end_round(1)
    assert not recwarn
    watch.add(segments(("a", 15, 15)))
    watch.add(segments(("b", 10, 0)))
    with pytest.warns(UserWarning, match=r"does not copy.*round 2 it would write 15 of 25.*2 different.*score 0\.00"):
        watch.end_round(2)
    for number in (3, 4):
        watch.add(segments(("a", 15, 0), ("b", 10, 0)))
        watch.end_round(number)
    assert not recwarn


def test_a_single_value_is_judged_by_its_share(recwarn):
    watch = CopyWatch()
    watch.add(segments(("a", 30, 20)))
    watch.end_round(0)
    assert not recwarn
    watch.add(segments(("a", 30, 2)))
    with pytest.warns(UserWarning, match=r"2 of 30 as they are, of 1 different"):
        watch.end_round(1)


def made_round(number, stated, taught=(0.25, 0.75), mu_hats=(0.25, 0.75)):
    groups, samples, verdict = [], [], Verdict(True, "A", AnswerOutcome.PARSED)
    for index, value in enumerate(stated):
        text = "A" if value is None else f"A\nConfidence: {value:.2f}"
        verified = VerifiedRollout(
            Rollout((1,), text, StopReason.EOS, (-1.0,), 0), verdict, InlineConfidence().parse(text)
        )
        groups.append(VerifiedGroup(EXAMPLE, (1,), (verified,), (mu_hats[index % len(mu_hats)],)))
        confidence = taught[index % len(taught)] if taught else None
        samples.append((TrainSample(EXAMPLE, verified, None, confidence),))
    return Round(number, tuple(groups), tuple(samples), None, {})


def test_confidences_that_are_hardly_stated_are_told_of_once(recwarn):
    watch = FormatWatch()
    for enough in (made_round(0, [None] * 31), made_round(0, [0.5] * 5 + [None] * 95)):
        watch.look(enough)
    assert not recwarn
    with pytest.warns(UserWarning, match=r"hardly stated: 4 of the 100 completions of round 0.*`data\.confidence`"):
        watch.look(made_round(0, [0.5] * 4 + [None] * 96))
    watch.look(made_round(1, [None] * 100))
    assert not recwarn


def test_completions_that_are_mostly_cut_are_told_of_once(recwarn):
    whole, watch = made_round(0, [0.5, 1.0] * 50), FormatWatch()

    def cut(number):
        groups = [
            replace(group, rollouts=(replace(v, rollout=replace(v.rollout, stop_reason=StopReason.LENGTH)),))
            if index < number
            else group
            for index, group in enumerate(whole.groups)
            for v in group.rollouts
        ]
        return replace(whole, groups=tuple(groups))

    watch.look(cut(50))
    assert not recwarn
    with pytest.warns(UserWarning, match=r"Most completions are cut: 51 of the 100.*`data\.sampling\.max_new_tokens`"):
        watch.look(cut(51))
    watch.look(cut(100))
    assert not recwarn


COLLAPSED = [1.0] * 255 + [0.9]


def test_confidences_of_one_value_are_told_of_once(recwarn):
    watch = FormatWatch()
    for fine in (
        made_round(0, [1.0] * 300),  # before training
        made_round(1, [1.0] * 255),  # too few
        made_round(1, [1.0] * 254 + [0.9] * 2),
        made_round(1, COLLAPSED, taught=(1.0,)),  # as it is taught
        made_round(1, COLLAPSED, taught=(), mu_hats=(1.0,)),  # as it is
    ):
        watch.look(fine)
    assert not recwarn
    with pytest.warns(UserWarning, match=r"one value: 255 of the 256.*round 3 are 1\.00.*0\.25 to 0\.75.*ForwardKL"):
        watch.look(made_round(3, COLLAPSED))
    watch.look(made_round(4, COLLAPSED))
    assert not recwarn
    with pytest.warns(UserWarning, match=r"should be 0\.10 to 0\.90"):
        FormatWatch().look(made_round(1, COLLAPSED, taught=(), mu_hats=(0.1, 0.9)))
    with pytest.warns(UserWarning, match="hardly stated"):
        watch.look(made_round(1, [None] * 300))  # the kinds are told of by themselves
