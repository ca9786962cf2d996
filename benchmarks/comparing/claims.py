"""What the papers report, held against what was measured here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comparing.paired import LEVEL, Difference, difference, from_zero
from comparing.results import BASE, EVENTS, Comparison, Groups, mean
from comparing.settings import CAOPD, DIVERGENCES

ON_SDPO = "CaOPD on SDPO"
NEAR = 0.03
"""Mean accuracies of ablations closer than this count as level."""
YES, NO, OPEN = "yes", "**no**", "open"
"""What is said of a claim; open is what the seeds do not tell."""
Finding = tuple[str, str]
Measured = Callable[[Comparison, str], Finding | None]
"""Finds what the runs say of a claim, for an event."""


@dataclass(frozen=True)
class Claim:
    """A published finding.

    Attributes:
        published: What the paper reports.
        measured: What is said of it here of an event, and in which numbers; None where the runs are missing.
        reason: The likely reason if it is not so.
    """

    published: str
    measured: Measured
    reason: str


def _of_methods(*needed: str) -> Callable[[Callable[[Groups], Finding]], Measured]:
    def wrap(find: Callable[[Groups], Finding]) -> Measured:
        def measured(comparison: Comparison, event: str) -> Finding | None:
            groups = comparison.methods(event)
            return find(groups) if all(name in groups for name in needed) else None

        return measured

    return wrap


def _judged(holds: bool) -> str:
    return YES if holds else NO


def _all_hold(differences: Sequence[Difference], hold: Sequence[bool]) -> str:
    """Yes if all hold; open if those that do not are no clear differences; else no."""
    if all(hold):
        return YES
    return NO if any(each.is_clear for each, holds in zip(differences, hold, strict=True) if not holds) else OPEN


@_of_methods("SDFT")
def sdft_is_certain(groups: Groups) -> Finding:
    stated, gap = mean(groups["SDFT"], "mean_confidence"), mean(groups["SDFT"], "ocg")
    return _judged(stated > 0.95 and gap > 0.1), f"mean confidence {stated:.3f}, gap {gap:+.3f}"


@_of_methods("SDPO")
def sdpo_is_overconfident(groups: Groups) -> Finding:
    gap = from_zero(groups, "SDPO", "ocg")
    return _all_hold([gap], [gap.rises]), f"gap {gap}"


@_of_methods("SDFT", "SDPO")
def sdpo_is_less_overconfident(groups: Groups) -> Finding:
    gap = difference(groups, "SDFT", "SDPO", "ocg")
    return _all_hold([gap], [gap.falls]), f"difference of the gaps {gap}"


@_of_methods("SDFT", "SDPO", CAOPD, ON_SDPO)
def accuracy_is_kept(groups: Groups) -> Finding:
    found = [difference(groups, *pair, "accuracy") for pair in (("SDFT", CAOPD), ("SDPO", ON_SDPO))]
    return _judged(not any(each.falls for each in found)), f"on SDFT {found[0]}; on SDPO {found[1]}"


@_of_methods("SDFT", CAOPD)
def calibrates_sdft(groups: Groups) -> Finding:
    return _is_calibrated(groups, "SDFT", CAOPD)


@_of_methods("SDPO", ON_SDPO)
def calibrates_sdpo(groups: Groups) -> Finding:
    return _is_calibrated(groups, "SDPO", ON_SDPO)


def _is_calibrated(groups: Groups, before: str, after: str) -> Finding:
    found = {name: difference(groups, before, after, name.lower()) for name in ("ECE", "Brier")}
    text = "; ".join(f"{name} {each}" for name, each in found.items())
    return _all_hold(list(found.values()), [each.falls for each in found.values()]), text


@_of_methods("SDFT", CAOPD)
def ranks_better(groups: Groups) -> Finding:
    spr = difference(groups, "SDFT", CAOPD, "spr")
    return _all_hold([spr], [spr.rises]), f"SPR {spr}"


@_of_methods("SDFT", "SDPO")
def sdpo_is_more_accurate(groups: Groups) -> Finding:
    accuracy = difference(groups, "SDFT", "SDPO", "accuracy")
    return _all_hold([accuracy], [accuracy.rises]), f"accuracy {accuracy}"


@_of_methods("SDPO", "GRPO", "RLCR", "CAR")
def order_of_gradients(groups: Groups) -> Finding:
    names = ("SDPO", "GRPO", "RLCR", "CAR")
    found = {pair: difference(groups, *pair, "accuracy") for pair in itertools.pairwise(names)}
    text = "; ".join(f"{first} to {second} {each}" for (first, second), each in found.items())
    return _all_hold(list(found.values()), [each.falls for each in found.values()]), text


@_of_methods("RLCR", "CAR", CAOPD)
def beats_gradients(groups: Groups) -> Finding:
    found = {name: difference(groups, name, CAOPD, "brier") for name in ("RLCR", "CAR")}
    text = "Brier " + "; ".join(f"against {name} {each}" for name, each in found.items())
    return _all_hold(list(found.values()), [each.falls for each in found.values()]), text


@_of_methods(CAOPD, ON_SDPO)
def caopd_is_underconfident(groups: Groups) -> Finding:
    found = {name: from_zero(groups, name, "ocg") for name in (CAOPD, ON_SDPO)}
    text = "; ".join(f"gap of {name} {each}" for name, each in found.items())
    return _all_hold(list(found.values()), [each.falls for each in found.values()]), text


def accuracy_is_flat(comparison: Comparison, event: str) -> Finding | None:
    groups = comparison.rollouts(event)
    if len(groups) < 2:
        return None
    values = {g: mean(runs, "accuracy") for g, runs in groups.items()}
    spread = max(values.values()) - min(values.values())
    return _judged(spread < NEAR), ", ".join(f"K = {g}: {value:.3f}" for g, value in values.items())


def calibration_grows(comparison: Comparison, event: str) -> Finding | None:
    groups = comparison.rollouts(event)
    if len(groups) < 2:
        return None
    found = {pair: difference(groups, *pair, "ece") for pair in itertools.pairwise(groups)}
    text = "ECE " + "; ".join(f"K = {first} to {second} {each}" for (first, second), each in found.items())
    return _all_hold(list(found.values()), [each.falls for each in found.values()]), text


def reverse_is_best(comparison: Comparison, event: str) -> Finding | None:
    groups = comparison.divergences(event)
    if len(groups) < len(DIVERGENCES):
        return None
    best = "reverse / reverse"
    found = {name: difference(groups, name, best, "brier") for name in groups if name != best}
    text = "Brier of reverse / reverse " + "; ".join(f"against {name} {each}" for name, each in found.items())
    return _all_hold(list(found.values()), [each.falls for each in found.values()]), text


def size_does_not_help(comparison: Comparison, event: str) -> Finding | None:
    by_width = comparison.sizes(event)
    if len(by_width) < 2:
        return None
    stated = [mean(groups[name], "mean_confidence") for groups in by_width.values() for name in (BASE, "SDFT")]
    gaps = [mean(groups["SDFT"], "ocg") for groups in by_width.values()]
    text = f"mean confidence of base and SDFT {min(stated):.3f} to {max(stated):.3f}, SDFT's gap "
    return _judged(min(stated) > 0.95), text + ", ".join(f"{gap:+.3f}" for gap in gaps)


def every_size_is_calibrated(comparison: Comparison, event: str) -> Finding | None:
    by_width = comparison.sizes(event)
    if len(by_width) < 2:
        return None
    found = [difference(groups, "SDFT", CAOPD, "ocg", distance=True) for groups in by_width.values()]
    text = "size of the gap, from the smallest model on: " + "; ".join(map(str, found))
    return _all_hold(found, [each.falls for each in found]), text


CLAIMS = (
    Claim(
        "SDFT states near certainty whatever its accuracy: mean confidence .972 and .996, gap +.48 and +.32.",
        sdft_is_certain,
        "The base is nearly always sure, and SDFT's demonstrations state 1.00: look at what the base states.",
    ),
    Claim(
        "SDPO is overconfident too: gap +.13.",
        sdpo_is_overconfident,
        "SDPO's context states what the shown rollout stated, and the base is nearly always sure.",
    ),
    Claim(
        "SDPO is less overconfident than SDFT on science: gap +.13 against +.48.",
        sdpo_is_less_overconfident,
        (
            "The base states 1.00 nearly always, so SDPO's context, a rollout with the confidence that it stated, "
            "shows 1.00 as SDFT's demonstration does. On science SDPO's smaller gap comes with its higher "
            "accuracy, which is bounded here: .642 for any method."
        ),
    ),
    Claim(
        "CaOPD is as accurate as its backbone.",
        accuracy_is_kept,
        "Training is short; a part of every gradient goes to the confidence.",
    ),
    Claim(
        "CaOPD on SDFT lowers ECE (.486 to .266, tool use .321 to .228) and Brier score.",
        calibrates_sdft,
        "Training is short: the confidence has not settled when the learning rate reaches zero.",
    ),
    Claim(
        "CaOPD on SDPO lowers ECE (tool use .298 to .133) and Brier score (.303 to .164).",
        calibrates_sdpo,
        "Training is short: the confidence has not settled when the learning rate reaches zero.",
    ),
    Claim(
        "CaOPD ranks right above wrong answers: SPR .387 to .599, tool use .085 to .555.",
        ranks_better,
        "Training is short: confidences of different questions have not parted yet.",
    ),
    Claim(
        "A CaOPD run ends underconfident, gap -.118.",
        caopd_is_underconfident,
        (
            "mu_hat is the success of a sampled completion. The greedy one is right more often, so that a student that "
            "states mu_hat is underconfident of it, and by the sampled event is not; and one published run is not a "
            "rule."
        ),
    ),
    Claim(
        "SDPO is more accurate than SDFT on science: .806, .491 (tool use: level, .662, .676).",
        sdpo_is_more_accurate,
        (
            "Both come close to what this task allows, .642, in so few rounds. SDPO needs a correct rollout to show; "
            "SDFT's demonstration is always there."
        ),
    ),
    Claim(
        "Accuracy falls from SDPO over GRPO and RLCR to CAR: .806, .745, .658, .616.",
        order_of_gradients,
        (
            "CAR's formula is this package's own choice, since the paper's could not be retrieved, and its rewards "
            "are scaled by the group's standard deviation, as GRPO's are: see below. RLCR mostly "
            "learns how sure to be of what the base can do already, and little else in so few steps: its accuracy "
            "stays near .42 on most seeds. Learning rate and schedule are the quickstart's, chosen for CaOPD."
        ),
    ),
    Claim(
        "CaOPD is better calibrated than RLCR and CAR.",
        beats_gradients,
        (
            "CAR states 0 or 1, since dividing by the group's standard deviation makes the best confidence more "
            "extreme than the success rate (docs/methods.md); without it, the row *CAR, unscaled*, it is far better "
            "calibrated. A low Brier score does not need a high accuracy: RLCR keeps most of the base's wrong "
            "answers and states low confidences for them. CaOPD answers more questions, whose right confidence is 1/2 "
            "to 1/4 where the drawn digit is hidden, and it is not settled after so few rounds: with 100 rounds, as in "
            "quickstart.md, its Brier score is lower."
        ),
    ),
    Claim(
        "Accuracy is flat in K.",
        accuracy_is_flat,
        "The means of two seeds differ without a trend over K, by less than two seeds of one K do.",
    ),
    Claim(
        "Calibration improves with K.",
        calibration_grows,
        (
            "It falls steeply up to 8 and is level from there within the spread of two seeds, which fits the "
            "paper's advice of K >= 8. What is left at K >= 8 is not the noise of mu_hat but training that is too "
            "short."
        ),
    ),
    Claim(
        "The loss is reverse KL (equation 7).",
        reverse_is_best,
        (
            "Reverse KL averages the teachers' log-probabilities, so the histogram of mu_hat is not learned, and "
            "it sharpens the answers, which drives mu_hat to 0 or 1 (docs/methods.md). Published SDFT results "
            "used forward KL. Confidences are single tokens here; in large models they are several."
        ),
    ),
    Claim(
        "Larger models are not less certain: base and SDFT.",
        size_does_not_help,
        "The warm start teaches certainty; where it did not, the model is too small for it.",
    ),
    Claim(
        "CaOPD closes the gap at every size.",
        every_size_is_calibrated,
        "Two seeds tell little of the sizes whose gaps differ most between them.",
    ),
)


def against_the_papers(comparison: Comparison) -> str:
    """Return a Markdown table of all claims that the runs say something about, then the reasons where they differ."""
    lines = [
        f"Differences are paired by seed: mean with its {1 - LEVEL:.0%} interval, and p of a two-sided t-test. *Open*: "
        "the interval holds 0, so that the seeds do not tell; of one seed nothing is claimed.",
        "",
        "| published | event | here | agrees |",
        "|---|---|---|---|",
    ]
    reasons = []
    for claim in CLAIMS:
        findings = {event: claim.measured(comparison, event) for event in EVENTS}
        found = {event: finding for event, finding in findings.items() if finding is not None}
        lines += [f"| {claim.published} | {event} | {numbers} | {said} |" for event, (said, numbers) in found.items()]
        if any(said != YES for said, _ in found.values()):
            reasons.append(f"- *{claim.published}* {claim.reason}")
    if reasons:
        lines += ["", "Where it differs or is open, the likely reason:", "", *reasons]
    return "\n".join(lines)
