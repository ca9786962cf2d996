"""What the runs gave: grouped, summed up over seeds, and written down."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caopd.commands.report.collect import collect
from caopd.types import GREEDY, SAMPLED
from comparing.settings import CAOPD, DIVERGENCES, METHODS, NUM_ROLLOUTS, SHIPPED_WIDTH
from fits import fit_metrics

SHOWN = ("accuracy", "ece", "brier", "ocg", "spr", "auroc", "mean_confidence", "format_adherence")
EVENTS = {
    GREEDY: "the greedy completion of each question",
    SAMPLED: "one completion of each question, sampled at temperature 1 as in training, which mu_hat estimates",
}
"""What the stated confidences are judged by; every number of the page is of one of these."""
CURVES = (
    *(f"val/{event}/{name}" for event in EVENTS for name in ("accuracy", "mean_confidence", "ece", "brier")),
    "rollout/mu_hat",
)
BASE = "base"
Metrics = Mapping[str, float | None]
Groups = dict[str, list[Metrics]]
"""Row -> metrics of every seed, with the seed and its CPU seconds."""


@dataclass(frozen=True)
class Comparison:
    """All that is known.

    Attributes:
        records: Of every run that ended well.
        failures: What is to be said of the others.
        environment: Of the machine.
        asked: Settings of the call: its budget, seeds and how many of these the ablations take.
    """

    records: Sequence[dict]
    failures: Sequence[str]
    environment: dict
    asked: dict

    def of(self, part: str, width: int | None = None) -> list[dict]:
        """Return the records of a part, of one size where it is given."""
        return [each for each in self.records if each["part"] == part and width in (None, each["width"])]

    @property
    def ablation_seeds(self) -> set[int]:
        """Seeds of the ablations, whose shared rows come from the main table's runs."""
        return set(self.asked["seeds"][: self.asked["ablation_seeds"]])

    def shared(self, method: str) -> list[dict]:
        """Return the main table's runs of a method that an ablation shares."""
        return [r for r in self.of("methods") if r["setting"] == method and r["seed"] in self.ablation_seeds]

    def methods(self, event: str) -> Groups:
        """Return base and methods, the base by seed, once."""
        records = self.of("methods")
        found = {name: [r for r in records if r["setting"] == name] for name in METHODS}
        return _bases(records, event) | _finals(found, event)

    def rollouts(self, event: str) -> Groups:
        """Return CaOPD by G; empty where there are only the main table's runs."""
        found = _by_setting(self.of("rollouts"))
        if not found:
            return {}
        found[str(NUM_ROLLOUTS)] = self.shared(CAOPD)
        return _finals({g: found[g] for g in sorted(found, key=int)}, event)

    def divergences(self, event: str) -> Groups:
        """Return CaOPD by the divergences of body / confidence."""
        found = _by_setting(self.of("divergences"))
        if not found:
            return {}
        found[next(iter(DIVERGENCES))] = self.shared(CAOPD)
        return _finals({name: found[name] for name in DIVERGENCES if name in found}, event)

    def sizes(self, event: str) -> dict[int, Groups]:
        """Return base, SDFT and CaOPD by width."""
        if not self.of("sizes"):
            return {}
        by_width: dict[int, Groups] = {}
        for width in sorted({each["width"] for each in self.of("sizes")} | {SHIPPED_WIDTH}):
            records = self.of("sizes", width)
            if width == SHIPPED_WIDTH:
                records = self.shared("SDFT") + self.shared(CAOPD)
            if records:
                found = {name: [r for r in records if r["setting"] == name] for name in ("SDFT", CAOPD)}
                by_width[width] = _bases(records, event) | _finals(found, event)
        return by_width

    @property
    def cpu_minutes(self) -> float:
        """Of all runs, failed ones left out."""
        return sum(each["cpu_seconds"] for each in self.records) / 60

    @property
    def wall_minutes(self) -> float:
        """Of all runs one after the other, failed ones left out."""
        return sum(each["seconds"] for each in self.records) / 60


def metrics_and_curves(folder: Path) -> dict:
    """Return the metrics before and after training, and the curves between, as TensorBoard has them."""
    (record,) = collect([folder])
    return fit_metrics(folder) | {"curves": {tag: record.curves[tag] for tag in CURVES if tag in record.curves}}


def known(runs: Sequence[Metrics], metric: str) -> list[float]:
    """Return the values of a metric, without those that are undefined."""
    return [value for run in runs if (value := run.get(metric)) is not None]


def mean(runs: Sequence[Metrics], metric: str) -> float:
    """Return the mean over the seeds."""
    return statistics.fmean(known(runs, metric))


def mean_and_spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation; without the latter for one value, ``-`` for none."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def table(head: str, groups: Mapping[str, Sequence[Metrics]], extra: Sequence[str] = ()) -> str:
    """Return a Markdown table: a row per group, how many seeds it has, mean and spread of every metric."""
    columns = [head, "seeds", *SHOWN, *extra, "CPU s"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, runs in groups.items():
        cells = [mean_and_spread(known(runs, metric)) for metric in (*SHOWN, *extra)]
        seconds = known(runs, "cpu_seconds")
        shown = f"{statistics.fmean(seconds):.0f}" if seconds else ""
        lines.append(f"| {' | '.join([name, str(len(runs)), *cells, shown])} |")
    return "\n".join(lines)


def every_run(records: Sequence[dict]) -> str:
    """Return a Markdown table of every run."""
    columns = ["part", "setting", "width", "seed", "event", *SHOWN, "CPU s", "wall s"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for each in records:
        head = [str(each[key]) for key in ("part", "setting", "width", "seed")]
        seconds = [f"{each['cpu_seconds']:.0f}", f"{each['seconds']:.0f}"]
        for event in EVENTS:
            cells = [mean_and_spread(known([each["final"][event]], metric)) for metric in SHOWN]
            lines.append(f"| {' | '.join([*head, event, *cells, *seconds])} |")
    return "\n".join(lines)


def as_json(comparison: Comparison) -> str:
    """Return all records as JSON."""
    parts = {"environment": comparison.environment, "asked": comparison.asked, "failures": list(comparison.failures)}
    parts["cpu_minutes"] = round(comparison.cpu_minutes, 1)
    runs = ",\n".join(json.dumps(record) for record in comparison.records)
    return json.dumps(parts, indent=1)[:-2] + f',\n "runs": [\n{runs}\n ]\n}}\n'


def _by_setting(records: Sequence[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = defaultdict(list)
    for each in records:
        found[each["setting"]].append(each)
    return dict(found)


def _finals(groups: Mapping[str, Sequence[dict]], event: str) -> Groups:
    """Metrics after training, of the groups that have any."""
    return {
        name: [{**each["final"][event], "seed": each["seed"], "cpu_seconds": each["cpu_seconds"]} for each in records]
        for name, records in groups.items()
        if records
    }


def _bases(records: Sequence[dict], event: str) -> Groups:
    """Metrics before training by seed; all runs of a seed start alike."""
    by_seed = {each["seed"]: {**each["initial"][event], "seed": each["seed"]} for each in records}
    return {BASE: [by_seed[seed] for seed in sorted(by_seed)]} if by_seed else {}
