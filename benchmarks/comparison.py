"""Every method on the embedded model, and the paper's ablations in the small: ``python benchmarks/comparison.py``.

All methods start from the same model and see the same prompts of a seed, with equally many rollouts. Beside them:
CaOPD under other numbers of rollouts and other divergences, and SDFT and CaOPD on other sizes of the model, which are
warm-started first. Writes ``comparison.json``, ``comparison.md`` and the figures.

Every run is a ``caopd fit`` in a process of its own. Finished runs are kept: a second call goes on where the first one
ended, and repeats runs whose settings have changed. A run that fails is reported, the others go on, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from comparing import settings
from comparing.page import write
from comparing.results import Comparison, metrics_and_curves
from comparing.settings import Budget, Entry
from comparing.sizes import knowledge
from fits import ROOT, Run, RunFailedError, environment, finished_or_error, run_all, run_once


def entries(arguments: argparse.Namespace, budget: Budget) -> list[Entry]:
    """Return every run that is asked for."""
    seeds, some = tuple(arguments.seeds), tuple(arguments.seeds[: arguments.ablation_seeds])
    parts = {
        "methods": lambda: settings.method_entries(tuple(arguments.methods), seeds, budget),
        "rollouts": lambda: settings.rollout_entries(tuple(arguments.rollouts), some, budget),
        "divergences": lambda: settings.divergence_entries(some, budget),
        "sizes": lambda: settings.size_entries(tuple(arguments.widths), some, budget),
    }
    return [entry for part in settings.PARTS if part in arguments.only for entry in parts[part]()]


def run_entries(wanted: list[Entry], budget: Budget, directory: Path, processes: int) -> list[dict | RunFailedError]:
    """Return the record or the failure of every run, models of other sizes among them; those are made first.

    With 0 processes nothing is run: what is not there counts as a failure.
    """
    widths = dict.fromkeys(entry.width for entry in wanted if entry.width != settings.SHIPPED_WIDTH)
    make = run_once if processes else finished_or_error
    jobs = {entry: partial(_run, entry, directory, make) for entry in wanted}
    on_shipped = [job for entry, job in jobs.items() if entry.width == settings.SHIPPED_WIDTH]
    on_others = [job for entry, job in jobs.items() if entry.width != settings.SHIPPED_WIDTH]
    models = [partial(_make_model, settings.warm_start(width, budget), width, directory, make) for width in widths]
    found = run_all([*on_shipped, *models], processes or 1) + run_all(on_others, processes or 1)
    shipped = {"part": "models", "width": settings.SHIPPED_WIDTH, "cpu_seconds": 0.0, "seconds": 0.0}
    return [*found, shipped | knowledge("embedded")] if widths else found


def _make_model(run: Run, width: int, directory: Path, make: Callable[..., dict]) -> dict:
    return {"part": "models", "width": width, **make(run, directory, knowledge)}


def _run(entry: Entry, directory: Path, make: Callable[..., dict]) -> dict:
    return entry.record(make(entry.run, directory, metrics_and_curves))


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=settings.PARTS, default=list(settings.PARTS))
    parser.add_argument("--methods", nargs="+", choices=list(settings.METHODS), default=list(settings.METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--ablation_seeds", type=int, default=2, help="how many of the seeds the ablations take")
    parser.add_argument("--rollouts", type=int, nargs="+", default=list(settings.NUMBERS_OF_ROLLOUTS))
    parser.add_argument("--widths", type=int, nargs="+", default=list(settings.WIDTHS))
    for name, field in Budget.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", type=int, default=field.default)
    parser.add_argument("--processes", type=int, default=2, help="0 runs nothing, and says what is missing")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "comparison")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, write the results and return the exit status."""
    asked = parsed(arguments)
    budget = Budget(**{name: getattr(asked, name) for name in Budget.__dataclass_fields__})
    asked.directory.mkdir(parents=True, exist_ok=True)
    found = run_entries(entries(asked, budget), budget, asked.directory, asked.processes)
    failures = [outcome for outcome in found if isinstance(outcome, RunFailedError)]
    records = [outcome for outcome in found if not isinstance(outcome, RunFailedError)]
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    settings_of_call = {**vars(budget), "seeds": asked.seeds, "ablation_seeds": asked.ablation_seeds}
    comparison = Comparison(records, [str(each) for each in failures], environment(asked.processes), settings_of_call)
    write(comparison, asked.results, asked.images)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
