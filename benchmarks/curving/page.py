"""The page of what a training step costs."""

from __future__ import annotations

from dataclasses import asdict

from curving.points import AXES, BASE, NUM_LAYERS, NUM_PROMPTS
from curving.results import QUANTITIES, X_NAMES, line, on, x_of

HEADS = ("training, CPU s", "planned", "generation, CPU s", "memory, MiB", "planned", "error")
UNITS = {
    "rollouts": (1, "rollout of a prompt"),
    "prompt": (100, "100 tokens of prompts"),
    "completion": (100, "100 tokens of completions"),
    "vocabulary": (10_000, "10,000 tokens of vocabulary"),
    "width": (1, "million weights of the layers"),
}
"""Axis -> the step that its slopes are stated for, and its name."""


def page(record: dict) -> str:
    """Return the page of a record."""
    sections = [part for axis in AXES for part in _axis(record, axis)]
    return "\n".join([*_head(), *_slopes(record), *sections, *_foot(record)]) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    return [_row(*heads), _row(*["---"] * len(heads)), *(_row(*cells) for cells in rows), ""]


def _head() -> list[str]:
    base = ", ".join(f"{name} {value:,}" for name, value in asdict(BASE).items())
    return [
        "# What a training step costs against its size",
        "",
        "One optimizer step of SDFT as `caopd fit` runs it, in float32 on one CPU thread: one micro-batch of "
        f"{NUM_PROMPTS} prompts with",
        f"G rollouts each, read by student and teacher with [shared prompts](../../docs/packing.md); a Llama of "
        f"{NUM_LAYERS} layers. One setting",
        f"at a time is varied around the base ({base}).",
        "The teacher's prompts also hold a demonstration. `python benchmarks/curves.py`",
        "",
        "*Training* is forward and backward passes, optimizer and teacher: CPU seconds, the median of two steps. "
        "*Memory* is the",
        "peak of the resident set beyond interpreter and libraries. *Planned* is what `caopd plan` says of the same "
        "options; its",
        "seconds are for an assumed rate of products, so their slopes are to be compared, not their height.",
        "",
        "![Time and memory of a step against its size](../../docs/images/curves.svg)",
        "",
    ]


def _slopes(record: dict) -> list[str]:
    rows = []
    for axis, (step, name) in UNITS.items():
        points = on(record, axis)
        x = [x_of(axis, point) for point in points]
        for quantity, title in QUANTITIES.items():
            found, said = (line(x, [point[key] for point in points]) for key in (quantity, f"planned_{quantity}"))
            numbers = [f"{value:,.3g}" for value in (found.slope * step, found.intercept, said.slope * step)]
            rows.append([title, name, *numbers, f"{found.largest_error:.0%}"])
    heads = ("of", "per", "slope", "at 0", "planned slope", "farthest point")
    return [
        "## Slopes",
        "",
        "Straight lines by least squares. *Farthest point*: the largest distance of a point from its line, as a share",
        "of the point.",
        "",
        *_table(heads, rows),
        _agreement(record),
        "",
    ]


def _agreement(record: dict) -> str:
    pairs = {key: [each[f"planned_{key}"] / each[key] for each in record["points"]] for key in QUANTITIES}
    seconds, memory = (f"{min(pairs[key]):.2f} to {max(pairs[key]):.2f}" for key in ("training_seconds", "mib"))
    return f"Of what was measured the plan says {memory} times the memory and {seconds} times the seconds."


def _axis(record: dict, axis: str) -> list[str]:
    rows = []
    for point in on(record, axis):
        cells = [f"{x_of(axis, point):,.2f}" if axis == "width" else f"{point[axis]:,}"]
        cells += [f"{point[key]:.2f}" for key in ("training_seconds", "planned_training_seconds", "generation_seconds")]
        cells += [f"{point[key]:,.0f}" for key in ("mib", "planned_mib")]
        rows.append([*cells, f"{point['planned_mib'] / point['mib'] - 1:+.0%}"])
    return [f"## {X_NAMES[axis]}", "", *_table((X_NAMES[axis], *HEADS), rows)]


def _foot(record: dict) -> list[str]:
    made = record["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return [f"{made['timestamp']}, {made['machine']}, {made['cpus']} CPUs, one thread. {versions}."]
