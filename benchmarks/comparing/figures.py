"""The paper's figures, of the comparison's runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from caopd.plots import bars_figure, save_figure, sweep_figure
from caopd.plots.comparison import Track, confidence_figure, curves_figure
from caopd.plots.spread import mean_and_spread
from comparing.results import BASE, EVENTS, Comparison, Groups, known
from comparing.settings import ALL_TRAINED, CAOPD, METHODS, ONE_TRAINED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {"accuracy": "Accuracy", "ece": "ECE", "brier": "Brier score", "auroc": "AUROC"}
CURVE_PANELS = {
    "accuracy": "Accuracy",
    "mean_confidence": "Mean stated confidence",
    "overconfidence": "Overconfidence gap",
    "ece": "ECE",
    "brier": "Brier score",
}
Points = list[tuple[float, float]]


def write_figures(comparison: Comparison, directory: Path) -> list[Path]:
    """Save every figure that the runs suffice for, one for each event, as SVG; return their paths."""
    makers: dict[str, Callable[[Comparison, str], Figure | None]] = {
        "confidence": confidence,
        "brier": brier,
        "curves": distillation_curves,
        "curves-gradients": gradient_curves,
        "rollouts": rollouts,
        "divergences": divergences,
        "sizes": sizes,
    }
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for (name, make), event in product(makers.items(), EVENTS):
        figure = make(comparison, event)
        if figure is not None:
            paths += save_figure(figure, directory / f"comparison-{name}-{event}", suffixes=[".svg"])
    return paths


def confidence(comparison: Comparison, event: str) -> Figure | None:
    """Accuracy against mean confidence, means and standard deviations over the seeds."""
    groups = comparison.methods(event)
    if not groups:
        return None
    axes = ("accuracy", "mean_confidence")
    measured = {name: [mean_and_spread(known(runs, axis)) for axis in axes] for name, runs in groups.items()}
    points = {name: (x, y) for name, ((x, _), (y, _)) in measured.items()}
    spreads = {name: (dx, dy) for name, ((_, dx), (_, dy)) in measured.items()}
    return confidence_figure(
        {name: Track(points[BASE], points[name], spreads[name]) for name in points if name != BASE},
        f"{event} completions",
    )


def brier(comparison: Comparison, event: str) -> Figure | None:
    """1 - Brier score of every method."""
    groups = comparison.methods(event)
    if not groups:
        return None
    return bars_figure(
        {f"1 - Brier score ({event})": {name: [1 - v for v in known(runs, "brier")] for name, runs in groups.items()}}
    )


def distillation_curves(comparison: Comparison, event: str) -> Figure | None:
    """Accuracy and calibration over training, means over the seeds, of what is not a policy gradient."""
    return _curves(comparison, event, ONE_TRAINED)


def gradient_curves(comparison: Comparison, event: str) -> Figure | None:
    """The same of the policy gradients, beside CaOPD."""
    return _curves(comparison, event, (CAOPD, *ALL_TRAINED))


def _curves(comparison: Comparison, event: str, chosen: Iterable[str]) -> Figure | None:
    records = {name: [r for r in comparison.of("methods") if r["setting"] == name] for name in chosen}
    if not any(records.values()):
        return None
    # Methods that are left out keep their place, and with it the others their colours of all figures.
    curves = {name: [r["curves"] for r in records.get(name, [])] for name in METHODS}
    panels = {
        f"{title} (held out, {event})": {name: _curve(runs, event, metric) for name, runs in curves.items()}
        for metric, title in CURVE_PANELS.items()
    }
    panels["Mean mu_hat of the rollouts"] = {name: _means(runs, "rollout/mu_hat") for name, runs in curves.items()}
    return curves_figure(panels)


def rollouts(comparison: Comparison, event: str) -> Figure | None:
    """CaOPD over the number of rollouts a prompt."""
    groups = comparison.rollouts(event)
    if not groups:
        return None
    panels = {
        f"{title} ({event})": {"CaOPD": [(int(g), known(runs, metric)) for g, runs in groups.items()]}
        for metric, title in PANELS.items()
    }
    return sweep_figure(panels, label="Rollouts per prompt (K)")


def divergences(comparison: Comparison, event: str) -> Figure | None:
    """CaOPD by divergence."""
    groups = comparison.divergences(event)
    if not groups:
        return None
    return bars_figure(
        {
            f"{title} ({event})": {name: known(runs, metric) for name, runs in groups.items()}
            for metric, title in PANELS.items()
        }
    )


def sizes(comparison: Comparison, event: str) -> Figure | None:
    """Accuracy and mean confidence over the size: base, SDFT and CaOPD."""
    by_width = comparison.sizes(event)
    if not by_width:
        return None
    parameters = parameters_of(comparison)
    names = dict.fromkeys(name for groups in by_width.values() for name in groups)
    panels = {
        name: {
            f"mean stated confidence ({event})": _over_sizes(by_width, parameters, name, "mean_confidence"),
            f"accuracy ({event})": _over_sizes(by_width, parameters, name, "accuracy"),
        }
        for name in names
    }
    return sweep_figure(panels, label="Parameters", shared_scale=True)


def parameters_of(comparison: Comparison) -> dict[int, int]:
    """Return the number of parameters by width."""
    return {each["width"]: int(each["parameters"]) for each in comparison.of("models")}


def _over_sizes(
    by_width: Mapping[int, Groups], parameters: Mapping[int, int], name: str, metric: str
) -> list[tuple[float, list[float]]]:
    return [(parameters[width], known(groups.get(name, []), metric)) for width, groups in by_width.items()]


def _curve(runs: Sequence[dict], event: str, metric: str) -> Points:
    """Means over the seeds by step; the gap is that of mean confidence and accuracy."""
    if metric == "overconfidence":
        stated, correct = (_curve(runs, event, name) for name in ("mean_confidence", "accuracy"))
        return [(step, q - r) for (step, q), (_, r) in zip(stated, correct, strict=True)]
    return _means(runs, f"val/{event}/{metric}")


def _means(runs: Sequence[dict], tag: str) -> Points:
    by_step: dict[float, list[float]] = {}
    for run in runs:
        for step, value in run.get(tag, []):
            by_step.setdefault(step, []).append(value)
    return [(step, statistics.fmean(values)) for step, values in sorted(by_step.items())]
