"""What is kept of a point, and the lines through the points of an axis."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from curving.points import BASE, NUM_LAYERS, Point, along
from peering.clock import MIB

LIBRARIES = "interpreter and libraries"
PLANNED_PARTS = ("teacher's forward passes", "student's forward and backward passes", "optimizer steps")
QUANTITIES = {"training_seconds": "training, CPU s", "mib": "memory, MiB"}
"""What lines are fitted through -> how tables name it."""


def point_of(point: Point, measured: dict, plan: dict) -> dict:
    """Return what is recorded of a point: the settings, what was measured, and what was planned."""
    (libraries,) = [part["training"] for part in plan["memory_bytes"] if part["name"] == LIBRARIES]
    steps = measured["steps"]
    return {
        **asdict(point),
        "weights": plan["setup"]["student"]["trained"],
        "tokens_read": plan["round"]["tokens the student reads"] + plan["round"]["tokens the teacher reads"],
        "training_seconds": round(statistics.median(step["training"] for step in steps), 4),
        "generation_seconds": round(statistics.median(step["generation"] for step in steps), 4),
        "mib": round(measured["memory_mib"], 1),
        "planned_training_seconds": round(sum(plan["seconds"][part] for part in PLANNED_PARTS), 4),
        "planned_mib": round((plan["peak_bytes"] - libraries) / MIB, 1),
    }


class Line(NamedTuple):
    """A straight line by least squares.

    Attributes:
        slope: Rise per unit.
        intercept: Value at 0.
        largest_error: Largest distance of a point from it, as a share of the point's own value.
    """

    slope: float
    intercept: float
    largest_error: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Return the line through points."""
    slope, intercept = statistics.linear_regression(x, y)
    pairs = list(zip(x, y, strict=True))
    return Line(slope, intercept, max(abs(intercept + slope * first - second) / second for first, second in pairs))


def on(record: dict, axis: str) -> list[dict]:
    """Return the record's points on an axis, in the order of its values."""
    by_point = {tuple(each[key] for key in asdict(BASE)): each for each in record["points"]}
    return [by_point[tuple(asdict(point).values())] for point in along(axis)]


def x_of(axis: str, point: dict) -> float:
    """Return where a point stands on an axis; a width stands for the layers' weights in millions."""
    if axis != "width":
        return point[axis]
    return (point["weights"] - point["vocabulary"] * point["width"]) / 1e6


X_NAMES = {
    "rollouts": "G",
    "prompt": "prompt, tokens",
    "completion": "completion, tokens",
    "vocabulary": "vocabulary, tokens",
    "width": f"weights of {NUM_LAYERS} layers, millions",
}
"""Axis -> what is on it."""
