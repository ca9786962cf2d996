"""The statistics of a round, which are logged under ``rollout/``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from caopd.errors import user_code
from caopd.methods import Method
from caopd.rounds.samples import is_trained
from caopd.types import ConfidenceOutcome, Form, StopReason, TrainSample, VerifiedGroup, verdicts_of

_WITHOUT_SEGMENT = (ConfidenceOutcome.MISSING, ConfidenceOutcome.UNFINISHED)


def method_statistics(
    method: Method, groups: Sequence[VerifiedGroup], samples: Sequence[Sequence[TrainSample]]
) -> dict[str, float]:
    """Return the method's own statistics, as means over the groups of a round that it made samples of.

    Args:
        method: The method that made the samples.
        groups: All groups of the round.
        samples: The training samples of every group.

    Raises:
        UserCodeError: The method raised.
    """
    each = []
    for group, of_group in zip(groups, samples, strict=True):
        if not is_trained(method, group):
            continue
        pairs = zip(of_group, group.rollouts, strict=False)  # without rollouts there is one sample
        made = [sample for sample, verified in pairs if verified.verdict is not None]
        with user_code(method, f"example {group.example.id!r}"):
            each.append(method.statistics(made or of_group))
    return {name: fmean(statistics[name] for statistics in each) for name in (each[0] if each else ())}


def round_statistics(groups: Sequence[VerifiedGroup], samples: Sequence[TrainSample]) -> dict[str, float]:
    """Return the statistics of a round's rollouts and training samples.

    What no rollout contributes to is left out, such as a mean confidence where none is stated.

    Shares and means are over as many rollouts of every group as the smallest group has: an adaptive budget samples more
    where the student is unsure, and such prompts would otherwise count for more.

    Args:
        groups: All groups of the round.
        samples: The training samples that are trained on.
    """
    smallest = min(len(group.rollouts) for group in groups)
    rollouts = [verified for group in groups for verified in group.rollouts[:smallest]]
    verdicts = verdicts_of(rollouts)
    estimates = [fmean(known) for group in groups if (known := [each for each in group.mu_hats if each is not None])]
    stated = [verified.reading.value for verified in rollouts if verified.reading.value is not None]
    outcomes = [verified.reading.outcome for verified in rollouts]
    without_weight = fmean(sample.weight == 0 for sample in samples)
    confidence_alone = fmean(sample.weight != 0 and sample.body_weight == 0 for sample in samples)
    if not rollouts:
        return {"without_weight": without_weight}
    statistics = {
        "format_adherence": len(stated) / len(rollouts),
        "decimal_format": fmean(outcome.form is Form.ASKED for outcome in outcomes),
        "other_form": fmean(outcome.form is Form.OTHER for outcome in outcomes),
        "missing_segment": fmean(outcome in _WITHOUT_SEGMENT for outcome in outcomes),
        "unfinished_thinking": fmean(outcome is ConfidenceOutcome.UNFINISHED for outcome in outcomes),
        "no_verdict": 1 - len(verdicts) / len(rollouts),
        "truncated": fmean(v.rollout.stop_reason is StopReason.LENGTH for v in rollouts),
        "num_rollouts": fmean(len(group.rollouts) for group in groups),
        "num_tokens": float(sum(len(v.rollout.token_ids) for group in groups for v in group.rollouts)),
        "num_tokens_mean": fmean(len(verified.rollout.token_ids) for verified in rollouts),
        "without_weight": without_weight,
        "confidence_alone": confidence_alone,
    }
    if verdicts:
        statistics["accuracy"] = fmean(verdict.correct for verdict in verdicts)
        statistics["answer_parse_rate"] = fmean(verdict.outcome.form is not Form.NONE for verdict in verdicts)
        statistics["answer_other_form"] = fmean(verdict.outcome.form is Form.OTHER for verdict in verdicts)
    if stated:
        statistics["mean_confidence"] = fmean(stated)
    if estimates:
        statistics["mu_hat"] = fmean(estimates)
    return statistics
