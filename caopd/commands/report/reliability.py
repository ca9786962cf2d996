"""The reliability diagrams of a report: one for each set of runs and event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from caopd.commands.report.collect import EVENTS
from caopd.commands.report.sections import ReportFigures
from caopd.commands.report.sets import RunSet
from caopd.commands.score.predictions import Predictions
from caopd.metrics.bins import reliability_bins
from caopd.metrics.functional.certainty import calibration_certainty
from caopd.metrics.functional.ranking import strict_pairwise_ranking
from caopd.plots import reliability_diagram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEXT = (
    "Bars reach the accuracy of the completions that state a confidence in their bin; the hatched part is the gap "
    "to what they state. Thin bars are where the accuracy of a calibrated model would lie in 95 of 100 cases. "
    "Runs without predictions show the sampled rollouts of their last training round; several seeds, all their "
    "completions together."
)
_NOTHING = (
    "the run directory holds neither predictions, which `caopd predict` writes, nor rollouts, which `data.keep_rounds` "
    "keeps"
)


@dataclass(frozen=True)
class _Judged:
    """N completions: the stated confidence (NaN for none), whether it is right, and which prompt it answers."""

    confidence: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]
    prompt: npt.NDArray[np.int64]


def reliability(sets: Sequence[RunSet]) -> ReportFigures:
    """Return the section of the diagrams.

    Args:
        sets: The sets of runs.
    """
    shown: dict[str, Figure] = {}
    missing: list[tuple[str, str]] = []
    for number, each in enumerate(sets, start=1):
        sources = _sources(each)
        if not sources:
            missing.append((each.name, _NOTHING))
        for source, parts in sources.items():
            if len(parts) < len(each.runs):
                missing.append((each.name, f"only {len(parts)} of its {len(each.runs)} seeds have {source}"))
            diagram = _diagram(_together(parts), f"{each.name}: {source}{_of_seeds(parts)}")
            if diagram is None:
                missing.append((each.name, f"none of its {source} states a confidence"))
            else:
                shown[f"reliability-{number}-{source.split()[0]}"] = diagram
    return ReportFigures("Reliability", _TEXT, shown, missing, wide=True)


def _sources(runs: RunSet) -> dict[str, list[_Judged]]:
    """Return the completions of every run that has some: predictions, or the rollouts of runs without."""
    sources = {}
    for event in EVENTS:
        known = [run.predictions[event] for run in runs.runs if event in run.predictions]
        if known:
            sources[f"{event} predictions"] = _with_shared_prompts(known)
    rollouts = [_Judged(*run.rollouts) for run in runs.runs if run.rollouts is not None]
    return sources or ({"sampled rollouts": rollouts} if rollouts else {})


def _with_shared_prompts(known: Sequence[Predictions]) -> list[_Judged]:
    """Return completions whose prompts have the same number in all files: those of a prompt depend on each other."""
    numbers: dict[object, int] = {}
    found = []
    for file, each in enumerate(known):
        names: dict[int, object] = {index: ("id", name) for name, index in each.prompt_ids.items()}
        own = [names.get(index, (file, index)) for index in each.prompt.tolist()]
        prompt = np.array([numbers.setdefault(name, len(numbers)) for name in own], dtype=np.int64)
        found.append(_Judged(each.confidence, each.correct, prompt))
    return found


def _together(parts: Sequence[_Judged]) -> _Judged:
    return _Judged(
        *(np.concatenate([getattr(each, name) for each in parts]) for name in ("confidence", "correct", "prompt"))
    )


def _of_seeds(parts: Sequence[_Judged]) -> str:
    return "" if len(parts) == 1 else f", {len(parts)} seeds"


def _diagram(judged: _Judged, title: str) -> Figure | None:
    stated = ~np.isnan(judged.confidence)
    if not stated.any():
        return None
    pair = torch.from_numpy(judged.confidence[stated]), torch.from_numpy(judged.correct[stated])
    certainty = calibration_certainty(*pair, torch.from_numpy(judged.prompt[stated]))
    spr = float(strict_pairwise_ranking(*pair))
    return reliability_diagram(reliability_bins(*pair), title=title, spr=spr, certainty=certainty)
