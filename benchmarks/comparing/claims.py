"""What the papers report, held against what was measured here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from comparing.results import BASE, Comparison, Groups, mean
from comparing.settings import CAOPD, DIVERGENCES

ON_SDPO = "CaOPD on SDPO"
NEAR = 0.03
"""Accuracies closer than this count as level."""
Finding = tuple[bool, str]


@dataclass(frozen=True)
class Claim:
    """A published finding.

    Attributes:
        published: What the paper reports.
        measured: Whether it is so here, and in which numbers; None where the runs are missing.
        reason: The likely reason if it is not.
    """

    published: str
    measured: Callable[[Comparison], Finding | None]
    reason: str


def _of_methods(*needed: str) -> Callable[[Callable[[Groups], Finding]], Callable[[Comparison], Finding | None]]:
    def wrap(find: Callable[[Groups], Finding]) -> Callable[[Comparison], Finding | None]:
        def measured(comparison: Comparison) -> Finding | None:
            groups = comparison.methods()
            return find(groups) if all(name in groups for name in needed) else None

        return measured

    return wrap


@_of_methods("SDFT")
def sdft_is_certain(groups: Groups) -> Finding:
    stated, gap = mean(groups["SDFT"], "mean_confidence"), mean(groups["SDFT"], "ocg")
    return stated > 0.95 and gap > 0.1, f"mean confidence {stated:.3f}, gap {gap:+.3f}"


@_of_methods("SDFT", "SDPO")
def sdpo_is_overconfident(groups: Groups) -> Finding:
    gap, other = mean(groups["SDPO"], "ocg"), mean(groups["SDFT"], "ocg")
    return 0.02 < gap < other, f"gap {gap:+.3f} against {other:+.3f}"


@_of_methods("SDFT", "SDPO", CAOPD, ON_SDPO)
def accuracy_is_kept(groups: Groups) -> Finding:
    pairs = [("SDFT", CAOPD), ("SDPO", ON_SDPO)]
    values = [(mean(groups[a], "accuracy"), mean(groups[b], "accuracy")) for a, b in pairs]
    text = "; ".join(f"{a} {x:.3f} -> {y:.3f}" for (a, _), (x, y) in zip(pairs, values, strict=True))
    return all(y > x - NEAR for x, y in values), text


@_of_methods("SDFT", CAOPD)
def calibrates_sdft(groups: Groups) -> Finding:
    return _is_calibrated(groups, "SDFT", CAOPD)


@_of_methods("SDPO", ON_SDPO)
def calibrates_sdpo(groups: Groups) -> Finding:
    return _is_calibrated(groups, "SDPO", ON_SDPO)


def _is_calibrated(groups: Groups, before: str, after: str) -> Finding:
    values = {key: (mean(groups[before], key), mean(groups[after], key)) for key in ("ece", "brier")}
    text = ", ".join(
        f"{name} {x:.3f} -> {y:.3f}" for name, (x, y) in zip(("ECE", "Brier"), values.values(), strict=True)
    )
    return all(y < x for x, y in values.values()), text


@_of_methods("SDFT", CAOPD)
def ranks_better(groups: Groups) -> Finding:
    x, y = mean(groups["SDFT"], "spr"), mean(groups[CAOPD], "spr")
    return y > x, f"SPR {x:.3f} -> {y:.3f}"


@_of_methods("SDFT", "SDPO")
def sdpo_is_as_accurate(groups: Groups) -> Finding:
    x, y = mean(groups["SDFT"], "accuracy"), mean(groups["SDPO"], "accuracy")
    return y > x - NEAR, f"SDFT {x:.3f}, SDPO {y:.3f}"


@_of_methods("SDPO", "GRPO", "RLCR", "CAR")
def order_of_gradients(groups: Groups) -> Finding:
    names = ("SDPO", "GRPO", "RLCR", "CAR")
    values = [mean(groups[name], "accuracy") for name in names]
    return values == sorted(values, reverse=True), ", ".join(
        f"{name} {value:.3f}" for name, value in zip(names, values, strict=True)
    )


@_of_methods("RLCR", "CAR", CAOPD)
def beats_gradients(groups: Groups) -> Finding:
    values = {name: mean(groups[name], "brier") for name in (CAOPD, "RLCR", "CAR")}
    return min(values.values()) == values[CAOPD], "Brier " + ", ".join(f"{n} {v:.3f}" for n, v in values.items())


@_of_methods(CAOPD, ON_SDPO)
def caopd_is_underconfident(groups: Groups) -> Finding:
    gaps = {name: mean(groups[name], "ocg") for name in (CAOPD, ON_SDPO)}
    return max(gaps.values()) < 0, "gap " + ", ".join(f"{name} {gap:+.3f}" for name, gap in gaps.items())


def accuracy_is_flat(comparison: Comparison) -> Finding | None:
    groups = comparison.rollouts()
    if len(groups) < 2:
        return None
    values = {g: mean(runs, "accuracy") for g, runs in groups.items()}
    spread = max(values.values()) - min(values.values())
    return spread < NEAR, ", ".join(f"K = {g}: {value:.3f}" for g, value in values.items())


def calibration_grows(comparison: Comparison) -> Finding | None:
    groups = comparison.rollouts()
    if len(groups) < 2:
        return None
    values = {g: mean(runs, "ece") for g, runs in groups.items()}
    falling = all(y < x for x, y in itertools.pairwise(values.values()))
    return falling, "ECE " + ", ".join(f"K = {g}: {value:.3f}" for g, value in values.items())


def reverse_is_best(comparison: Comparison) -> Finding | None:
    groups = comparison.divergences()
    if len(groups) < len(DIVERGENCES):
        return None
    values = {name: mean(runs, "brier") for name, runs in groups.items()}
    best = min(values, key=lambda name: values[name])
    return best == "reverse / reverse", "Brier " + ", ".join(f"{n} {v:.3f}" for n, v in values.items())


def size_does_not_help(comparison: Comparison) -> Finding | None:
    by_width = comparison.sizes()
    if len(by_width) < 2:
        return None
    stated = [mean(groups[name], "mean_confidence") for groups in by_width.values() for name in (BASE, "SDFT")]
    gaps = [mean(groups["SDFT"], "ocg") for groups in by_width.values()]
    text = f"mean confidence of base and SDFT {min(stated):.3f} to {max(stated):.3f}, SDFT's gap "
    return min(stated) > 0.95, text + ", ".join(f"{gap:+.3f}" for gap in gaps)


def every_size_is_calibrated(comparison: Comparison) -> Finding | None:
    by_width = comparison.sizes()
    if len(by_width) < 2:
        return None
    pairs = [(mean(groups["SDFT"], "ocg"), mean(groups[CAOPD], "ocg")) for groups in by_width.values()]
    text = ", ".join(f"{before:+.3f} -> {after:+.3f}" for before, after in pairs)
    return all(abs(after) < abs(before) for before, after in pairs), f"gap from the smallest model on: {text}"


CLAIMS = (
    Claim(
        "SDFT states near certainty whatever its accuracy: mean confidence .972 and .996, gap +.48 and +.32.",
        sdft_is_certain,
        "The base is nearly always sure, and SDFT's demonstrations state 1.00: look at what the base states.",
    ),
    Claim(
        "SDPO is overconfident too, less than SDFT on science: gap +.13.",
        sdpo_is_overconfident,
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
            "On SDPO, rollouts without another correct one in their group have no context and weight 0. These are "
            "the prompts of low mu_hat, so what is learned leans upward. One published run is not a rule either."
        ),
    ),
    Claim(
        "SDPO is more accurate than SDFT on science (.806, .491), level on tool use (.662, .676).",
        sdpo_is_as_accurate,
        (
            "SDPO needs a correct rollout to show, and the base answers half of the questions at random; SDFT's "
            "demonstration is always there."
        ),
    ),
    Claim(
        "Accuracy falls from SDPO over GRPO and RLCR to CAR: .806, .745, .658, .616.",
        order_of_gradients,
        (
            "CAR's formula is this package's own choice, since the paper's could not be retrieved. RLCR mostly "
            "learns how sure to be of what the base can do already, and little else in so few steps: its accuracy "
            "stays near .42 on four of five seeds. Learning rate and schedule are those of distillation; nothing "
            "was tuned."
        ),
    ),
    Claim(
        "CaOPD is better calibrated than RLCR and CAR.",
        beats_gradients,
        (
            "A low Brier score does not need a high accuracy: RLCR keeps most of the base's wrong answers and "
            "states low confidences for them. CaOPD answers more questions, whose right confidence is 1/2 to 1/4 "
            "where the drawn digit is hidden, and it is not settled after so few rounds: with 100 rounds, as in "
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
        "Training is equally short for every size.",
    ),
)


def against_the_papers(comparison: Comparison) -> str:
    """Return a Markdown table of all claims that the runs say something about, then the reasons where they differ."""
    lines = ["| published | here | agrees |", "|---|---|---|"]
    reasons = []
    for claim in CLAIMS:
        finding = claim.measured(comparison)
        if finding is None:
            continue
        agrees, numbers = finding
        lines.append(f"| {claim.published} | {numbers} | {'yes' if agrees else '**no**'} |")
        if not agrees:
            reasons.append(f"- *{claim.published}* {claim.reason}")
    return "\n".join([*lines, "", *(["Where it differs, the likely reason:", "", *reasons] if reasons else [])])
