"""The catalogue: one entry for each metric of stated confidence. No torch here, since tables and pages read it, too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Best = Literal["largest", "smallest", "nearest zero"]
"""Which value of a metric is the best."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """An entry of the catalogue: all that logs, scores, tables and model cards need to know of a metric.

    Attributes:
        name: Name of the metric in logs and files.
        title: Heading of the metric in tables.
        function: The function of counts that computes it, as ``module.function`` of :mod:`caopd.metrics.functional`.
        best: Which of its values is the best; None where no value is better than another.
        over: What the function is given, an attribute of
            :class:`~caopd.metrics.functional.counts.CompletionCounts`: the completions that state a confidence
            (``stated``); all of them, a missing confidence taken as 0.0 (``strict``); how many state a confidence
            (``stating``), in the form asked for (``stating_as_asked``) or in another one (``stating_otherwise``); how
            many give an answer (``answering``), and in another form than the one asked for (``answering_otherwise``).
        arguments: Further arguments that the function is given after the counts.
        lowest: Its smallest possible value.
        highest: Its largest possible value.
        logged: Whether every validation and test computes it, and ``metrics.json`` holds it; ``caopd score`` computes
            the others, too.
        headline: Whether tables, reports and model cards show it, wherever it is computed.
        long_title: Its name in full, for model cards; where it is empty, the title is used.

    Example:
        >>> CATALOGUE["ece"].heading, CATALOGUE["ece"].in_full
        ('ECE ↓', 'expected calibration error (ECE, 10 bins)')
    """

    name: str
    title: str
    function: str
    best: Best | None = None
    over: Literal[
        "stated",
        "strict",
        "stating",
        "stating_as_asked",
        "stating_otherwise",
        "answering",
        "answering_otherwise",
    ] = "stated"
    arguments: tuple[float, ...] = ()
    lowest: float = 0.0
    highest: float = 1.0
    logged: bool = True
    headline: bool = False
    long_title: str = ""

    @property
    def heading(self) -> str:
        """The title, with an arrow up where large values are good, and down where small ones are."""
        return self.title + {"largest": " ↑", "smallest": " ↓"}.get(self.best or "", "")

    @property
    def in_full(self) -> str:
        """The long title, for readers who do not know the short one."""
        return self.long_title or self.title


_STATED = {
    spec.name: spec
    for spec in (
        MetricSpec("accuracy", "Accuracy", "means.accuracy_of_counts", "largest", over="strict", headline=True),
        MetricSpec(
            "ece",
            "ECE",
            "calibration_error.equal_width_error_of_counts",
            "smallest",
            headline=True,
            long_title="expected calibration error (ECE, 10 bins)",
        ),
        MetricSpec(
            "debiased_ece",
            "Debiased ECE",
            "calibration_error.debiased_error_of_counts",
            "smallest",
            headline=True,
            long_title="ECE without most of what chance adds",
        ),
        MetricSpec("brier", "Brier score", "brier.brier_of_counts", "smallest", headline=True),
        MetricSpec(
            "ocg",
            "Overconfidence gap",
            "means.overconfidence_gap_of_counts",
            "nearest zero",
            lowest=-1.0,
            headline=True,
            long_title="overconfidence gap (mean confidence - accuracy)",
        ),
        MetricSpec(
            "spr",
            "SPR",
            "ranking.strict_pairwise_ranking_of_counts",
            "largest",
            headline=True,
            long_title="strict pairwise ranking (SPR)",
        ),
        MetricSpec(
            "auroc",
            "AUROC",
            "ranking.auroc_of_counts",
            "largest",
            headline=True,
            long_title="AUROC of the confidence",
        ),
        MetricSpec("tie_rate", "Tie rate", "ranking.tie_rate_of_counts"),
        MetricSpec(
            "mean_confidence",
            "Mean confidence",
            "means.mean_confidence_of_counts",
            headline=True,
            long_title="mean stated confidence",
        ),
        MetricSpec(
            "format_adherence",
            "Format adherence",
            "means.share_of_counts",
            "largest",
            over="stating",
            headline=True,
            long_title="completions that state a confidence",
        ),
        MetricSpec(
            "decimal_format",
            "Form asked for",
            "means.share_of_counts",
            "largest",
            over="stating_as_asked",
            headline=True,
            long_title="completions that state it in the form asked for",
        ),
        MetricSpec(
            "other_form",
            "Other form",
            "means.share_of_counts",
            over="stating_otherwise",
            headline=True,
            long_title="completions that state it in another form that is read",
        ),
        MetricSpec(
            "answer_parse_rate",
            "Answer parse rate",
            "means.share_of_counts",
            "largest",
            over="answering",
            headline=True,
            long_title="completions that give an answer",
        ),
        MetricSpec(
            "answer_other_form",
            "Answer in another form",
            "means.share_of_counts",
            over="answering_otherwise",
            headline=True,
            long_title="completions that give it in another form that is read",
        ),
        MetricSpec("brier_reliability", "Reliability", "brier.reliability_of_counts", "smallest", logged=False),
        MetricSpec("brier_resolution", "Resolution", "brier.resolution_of_counts", "largest", logged=False),
        MetricSpec("brier_uncertainty", "Uncertainty", "brier.uncertainty_of_counts", logged=False),
        MetricSpec(
            "adaptive_ece", "Adaptive ECE", "calibration_error.adaptive_error_of_counts", "smallest", logged=False
        ),
        MetricSpec(
            "unique_value_ece",
            "Unique-value ECE",
            "calibration_error.unique_value_error_of_counts",
            "smallest",
            logged=False,
        ),
        MetricSpec(
            "smooth_ece", "Smooth ECE", "smooth.smooth_error_of_counts", "smallest", logged=False, headline=True
        ),
        MetricSpec("aurc", "AURC", "selective.aurc_of_counts", "smallest", logged=False, headline=True),
        *(
            MetricSpec(
                f"selective_accuracy_{coverage}",
                f"Accuracy at coverage {coverage}",
                "selective.selective_accuracy_of_counts",
                "largest",
                arguments=(coverage,),
                logged=False,
            )
            for coverage in (0.5, 0.8, 0.9)
        ),
    )
}
_STRICT = {
    f"{name}_strict": replace(
        _STATED[name], name=f"{name}_strict", title=f"{_STATED[name].title}, strict", over="strict", headline=False
    )
    for name in ("ece", "brier", "ocg", "mean_confidence")
}
CATALOGUE = {**_STATED, **_STRICT}
"""Name -> entry of the metric, in the order of files and tables."""

FLOOR, P_VALUE = "noise_floor", "calibration_p_value"
"""What stands beside the metrics of a run and is no function of counts: the ECE that a calibrated model would show, and
how often it would show as large a one."""


def interval(values: Mapping[str, float | None], name: str) -> tuple[float, float] | None:
    """Return the 95 % interval that stands beside a value of a run, None where there is none.

    Args:
        values: Name -> value, as every validation and test computes them.
        name: ``ece`` or :data:`FLOOR`.

    Example:
        >>> interval({"ece": 0.05, "ece_low": 0.02, "ece_high": 0.08}, "ece")
        (0.02, 0.08)
    """
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    return None if low is None or high is None or math.isnan(low) else (low, high)


def logged() -> list[MetricSpec]:
    """Return the metrics of every validation and test."""
    return [spec for spec in CATALOGUE.values() if spec.logged]


def headline() -> list[MetricSpec]:
    """Return the metrics that tables of predictions show."""
    return [spec for spec in CATALOGUE.values() if spec.headline]


def shown_of_runs() -> list[MetricSpec]:
    """Return the metrics that tables, reports and model cards show of a run: the headline, as far as it is logged."""
    return [spec for spec in headline() if spec.logged]
