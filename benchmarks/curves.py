"""What a training step costs against G, lengths, vocabulary and model size: ``python benchmarks/curves.py``.

One setting at a time is varied around a base point (``curving/points.py``). Every point is a ``caopd fit`` of a few
rounds in a process of its own on one thread: CPU seconds of a step, and the peak of the resident set beyond the
interpreter and its libraries. Beside it stands what ``caopd plan`` says of the same options. Finished points are kept
in ``--directory``; a change of the package makes them anew. ``tests/benchmarks/test_memory.py`` measures the memory of
some points again and compares it with the record.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path

from caopd.plots import save_figure
from curving.figure import curves_figure
from curving.page import page
from curving.points import OPTIONS, POINTS, planned, run_of
from curving.results import point_of
from fits import ROOT, all_or_exit, environment, run_all, run_once

BENCHMARKS = Path(__file__).parent


def cost(folder: Path) -> dict:
    """Return what a run has measured."""
    return json.loads((folder / "cost.json").read_text())


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-curves", help="of models and runs")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time; more than one costs precision")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results" / "curves.json", help="and .md beside it")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "curves", help="without its suffix")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure what has no record yet, plan all points, and write record, page and figure."""
    os.environ["OMP_NUM_THREADS"] = "1"
    asked = parse_arguments(arguments)
    directory = asked.directory.resolve()
    runs = [run_of(point, directory) for point in POINTS]
    found = all_or_exit(run_all([partial(run_once, run, directory, cost) for run in runs], asked.processes))
    points = [
        point_of(point, measured, planned(point, directory)) for point, measured in zip(POINTS, found, strict=True)
    ]
    record = {"benchmark": "curves", "environment": environment(asked.processes), "options": OPTIONS, "points": points}
    asked.output.write_text(json.dumps(record, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(page(record))
    save_figure(curves_figure(record), asked.figure, suffixes=[".svg"])
    print(page(record))


if __name__ == "__main__":
    main()
