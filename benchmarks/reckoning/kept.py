"""Keeps what runs predicted as tables in the repository, so that calls on several days and machines add up.

A run has NAME.csv, a line for every completion, and NAME.json: which run it is, of which settings, and what it took.
Code that has changed since does not make a table invalid; other settings do.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from comparing.results import EVENTS
from fits import ROOT, Run
from reckoning.results import file_name, predictions_of, tasks_of

SHOWN = ("prompt_id", "category", "correct", "confidence", "answer_outcome", "confidence_outcome")
"""Of a line that ``caopd predict`` writes, what is kept: all that ``caopd score`` reads beside the event."""
TABLES = ROOT / "benchmarks" / "results" / "arithmetic"


@dataclass(frozen=True)
class Kept:
    """A run whose predictions are kept.

    Attributes:
        table: File of its predictions.
        record: ``method``, ``seed``, ``settings`` (their hash), seconds, and where it was made.
    """

    table: Path
    record: Mapping

    @property
    def key(self) -> tuple[str, int]:
        """Method and seed."""
        return self.record["method"], self.record["seed"]


def settings_of(runs: Iterable[Run]) -> str:
    """Return a hash of runs' arguments and configs: what they were asked to do, whatever the code that did it."""
    settings = []
    for run in runs:
        config = yaml.safe_load((ROOT / run.config).read_text()) if run.config else None
        settings.append([config, list(run.arguments)])
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def keep(name: str, predicted: Path, record: Mapping, tables: Path = TABLES) -> Kept:
    """Write the table of a run and its record.

    Args:
        name: Of both files.
        predicted: The folder with its files of predictions.
        record: What is said of the run.
        tables: Where they are written.
    """
    tables.mkdir(parents=True, exist_ok=True)
    rows = [row for task in tasks_of(predicted) for event in EVENTS for row in _rows(predicted, task, event)]
    table = tables / f"{name}.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "event", *SHOWN])
        writer.writerows(rows)
    table.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    return Kept(table, record)


def kept(settings: Mapping[tuple[str, int], str], tables: Path = TABLES) -> list[Kept]:
    """Return the kept runs of these settings, in the order of methods and seeds.

    Args:
        settings: Method and seed -> hash of its settings.
        tables: Where they are.
    """
    found = [Kept(file.with_suffix(".csv"), json.loads(file.read_text())) for file in sorted(tables.glob("*.json"))]
    by_key = {each.key: each for each in found if settings.get(each.key) == each.record["settings"]}
    return [by_key[key] for key in settings if key in by_key]


def unpack(each: Kept, folder: Path) -> Path:
    """Write the predictions of a kept run as files that ``caopd score`` reads, and return their folder."""
    folder = folder / each.table.stem
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    with each.table.open(newline="") as file:
        for row in csv.DictReader(file):
            values = {name: row[name] or None for name in SHOWN}
            stated = None if values["confidence"] is None else float(values["confidence"])
            shown = {**values, "event": row["event"], "correct": row["correct"] == "1", "confidence": stated}
            lines.setdefault(file_name(row["task"], row["event"]), []).append(json.dumps(shown))
    for name, texts in lines.items():
        (folder / name).write_text("\n".join(texts) + "\n")
    return folder


def _rows(predicted: Path, task: str, event: str) -> list[list]:
    lines = map(json.loads, predictions_of(predicted, task, event).read_text().splitlines())
    shown = ({**row, "correct": int(row["correct"])} for row in lines)
    return [[task, event, *(row.get(name) for name in SHOWN)] for row in shown]
