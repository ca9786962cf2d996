"""The page of the runs: what was asked for, what came, and kind by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from caopd.types import SAMPLED
from comparing.results import EVENTS
from fits import minutes_of
from reckoning.results import TRAINED, largest_gap
from reckoning.settings import BASELINE

SHOWN = ("accuracy", "mean_confidence", "ocg", "ece", "brier", "auroc", "spr", "format_adherence")
COMPARED = ("accuracy", "ece", "brier", "auroc")
TARGETS = {"accuracy": "within 2 points of SDFT", "ocg": "at most .05 either way", "ece": "at most .06"} | {
    "auroc": "at least .85",
    "spr": "at least .75",
    "kinds": "every kind within .10",
}


def page(record: dict) -> str:
    """Return the record as Markdown."""
    asked, runs = record["asked"], record["runs"]
    more = [f"{name}: {' '.join(asked[name])}" for name in ("options", "sft_options", "fit_options") if asked[name]]
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs})))
    parts = [
        "# SmolLM2-135M on generated sums",
        f"`python benchmarks/arithmetic.py`; one thread a run{_machines(runs)}."
        + (f" Options: {'; '.join(more)}." if more else ""),
        f"Seeds {seeds}, on which nothing was tuned. A number is of all seeds together with its 95 % interval, "
        f"prompts as units; `n` questions are held out. Differences are of the same questions, minus {BASELINE}.",
        "## Targets, by sampled completions",
        targets(record),
    ]
    for task, events in record["tasks"].items():
        for event, meaning in EVENTS.items():
            parts += [f"## {task}, {event}: {meaning}", _measures(events[event])]
            if differences := against(events[event], BASELINE):
                parts.append(differences)
        parts += [f"## {task}, by kind, sampled", _kinds(events[SAMPLED])]
    parts += ["## Every seed, trained kinds", _every_seed(record["tasks"][TRAINED])]
    parts += ["## What it took", _cost(record)]
    return "\n\n".join(parts) + "\n"


def targets(record: dict) -> str:
    """Return what was aimed at, and what came, as a table: sampled completions of the kinds that were trained on."""
    rows = []
    for method, found in record["tasks"][TRAINED][SAMPLED].items():
        measures = found["all"]
        worst = largest_gap(measures["categories"])
        values = {name: _number(measures, name) for name in TARGETS if name != "kinds"}
        values["kinds"] = "-" if worst is None else f"{worst[1]:+.3f} ({worst[0]})"
        rows.append([method, *values.values()])
    return table(["method", *TARGETS], [["target", *TARGETS.values()], *rows])


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _measures(methods: Mapping[str, dict]) -> str:
    rows = [
        [method, str(found["all"]["n"]), *(interval(found["all"].get(name)) for name in SHOWN)]
        for method, found in methods.items()
    ]
    return table(["method", "n", *SHOWN], rows)


def against(methods: Mapping[str, dict], baseline: str) -> str:
    """Return the paired differences from a baseline as a table; nothing where none was measured."""
    rows = [
        [method, *(_difference(found["against"][name]) for name in COMPARED)]
        for method, found in methods.items()
        if "against" in found
    ]
    return table([f"minus {baseline}", *COMPARED], rows) if rows else ""


def _kinds(methods: Mapping[str, dict]) -> str:
    kinds = {kind: each["n"] for found in methods.values() for kind, each in found["all"]["categories"].items()}
    rows = []
    for kind, number in kinds.items():
        pairs = [found["all"]["categories"][kind] for found in methods.values()]
        cells = [f"{_number(each, 'accuracy')} / {_number(each, 'mean_confidence')}" for each in pairs]
        rows.append([f"`{kind}`", str(number), *cells])
    return table(["kind", "n", *(f"{name}: success / confidence" for name in methods)], rows)


def _every_seed(events: Mapping[str, Mapping[str, dict]]) -> str:
    rows = [
        [event, method, seed, *(_number(found["seeds"][seed], name) for name in SHOWN)]
        for event, methods in events.items()
        for method, found in methods.items()
        for seed in found["seeds"]
    ]
    return table(["event", "method", "seed", *SHOWN], rows)


def _cost(record: dict) -> str:
    rows = [
        [
            run["method"],
            str(run["seed"]),
            *(minutes_of(run["cpu_seconds"][name]) for name in ("sft", "fit", "predicting")),
        ]
        for run in record["runs"]
    ]
    return table(
        ["method", "seed", "CPU minutes of the SFT (shared)", "of the method", "of the test completions"], rows
    )


def _machines(runs: Sequence[Mapping]) -> str:
    found = {
        f"{each['timestamp'][:10]}, {each['cpus']} CPU cores, torch {each['versions']['torch']}": None
        for each in (run["environment"] for run in runs)
    }
    return "".join(f"; {machine}" for machine in found)


def _number(measures: Mapping[str, dict], name: str) -> str:
    return f"{measures[name]['value']:.3f}" if name in measures else "-"


def interval(estimate: Mapping[str, float] | None) -> str:
    """Return a measure with its interval; a dash where there is none."""
    if estimate is None:
        return "-"
    ends = "" if estimate["low"] is None else f" [{estimate['low']:.3f}, {estimate['high']:.3f}]"
    return f"{estimate['value']:.3f}{ends}"


def _difference(found: Mapping[str, float | None]) -> str:
    if found["difference"] is None:
        return "-"
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
