"""The figures of a report, section by section."""

from __future__ import annotations

from collections.abc import Sequence

from caopd.commands.report.lines import risk_and_coverage, training
from caopd.commands.report.metric_tables import events_of
from caopd.commands.report.points import calibration_and_ranking, confidence_and_accuracy
from caopd.commands.report.reliability import reliability
from caopd.commands.report.sections import ReportFigures
from caopd.commands.report.sets import RunSet


def figures(sets: Sequence[RunSet]) -> list[ReportFigures]:
    """Return the sections with figures, also those that say why there is no figure.

    Args:
        sets: The sets of runs.
    """
    of_event = (confidence_and_accuracy, risk_and_coverage, calibration_and_ranking)
    by_event = [section(sets, event) for event in events_of(sets) for section in of_event]
    return [reliability(sets), *by_event, training(sets)]
