"""What the runs predicted, measured: by method, task and event, each seed by itself and all together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from caopd.commands.score.bootstrap import Scores, score
from caopd.commands.score.paired import compare, matched
from caopd.commands.score.predictions import read_predictions
from comparing.results import EVENTS

TRAINED = "trained"
"""Name of the task that the methods train on; the others are named in the config."""
RESAMPLES = 1000
Files = Mapping[int, Path]
"""Seed -> file of predictions."""


def predictions_of(run: Path, task: str, event: str) -> Path:
    """Return the file that ``caopd predict`` wrote for a task and an event.

    Raises:
        OSError: There is none, or more than one.
    """
    name = file_name(task, event)
    found = list(run.rglob(name))
    if len(found) != 1:
        raise OSError(f"Expected one file {name} below {run}, but found {len(found)}.")
    return found[0]


def file_name(task: str, event: str) -> str:
    """Return the name that ``caopd predict`` gives to the file of a task and an event."""
    return f"predictions.{event}.jsonl" if task == TRAINED else f"predictions.{task}.{event}.jsonl"


def tasks_of(run: Path) -> list[str]:
    """Return the names of the tasks that a run predicted, the one that is trained on first."""
    names = [path.name.split(".") for path in sorted(run.rglob("predictions.*.jsonl"))]
    return [TRAINED, *sorted({parts[1] for parts in names if len(parts) == 4})]


def merged(files: Files, output: Path) -> Path:
    """Write the predictions of all seeds into one file, where a prompt is a seed's own."""
    lines = []
    for seed, path in files.items():
        for line in path.read_text().splitlines():
            row = json.loads(line)
            lines.append(json.dumps(row | {"prompt_id": f"{seed}: {row['prompt_id']}"}))
    output.write_text("\n".join(lines) + "\n")
    return output


def measured(path: Path, resamples: int = RESAMPLES) -> dict:
    """Return the measures of a file with their intervals, and those of every category."""
    overall, categories = score(read_predictions(path), resamples)
    return {**_numbers(overall), "categories": {name: _numbers(each) for name, each in categories.items()}}


def compared(first: Path, second: Path, resamples: int = RESAMPLES) -> dict:
    """Return the paired difference of every measure, the second file's minus the first's."""
    one, other, left_out = matched((read_predictions(first), read_predictions(second)), (first, second))
    if left_out:
        raise ValueError(f"Expected {first} and {second} to hold the same prompts, but {left_out} are in one alone.")
    return {name: asdict(each) for name, each in compare(one, other, resamples).items()}


def results(runs: Mapping[str, Mapping[int, Path]], baseline: str, directory: Path, resamples: int = RESAMPLES) -> dict:
    """Measure everything.

    Args:
        runs: Method -> seed -> folder of its predictions.
        baseline: The method with which the others are compared, question by question.
        directory: Where the files of all seeds together are written.
        resamples: Of the intervals.

    Returns:
        Task -> event -> method -> ``seeds`` (the measures of each), ``all`` (of all seeds together) and, beside the
        baseline, ``against`` it.
    """
    some = next(iter(next(iter(runs.values())).values()))
    return {
        task: {event: _event(runs, baseline, task, event, directory, resamples) for event in EVENTS}
        for task in tasks_of(some)
    }


def _event(
    runs: Mapping[str, Mapping[int, Path]], baseline: str, task: str, event: str, directory: Path, resamples: int
) -> dict[str, dict]:
    files = {
        method: {seed: predictions_of(run, task, event) for seed, run in seeds.items()}
        for method, seeds in runs.items()
    }
    together = {
        method: merged(seeds, directory / f"{_slug(method)}.{task}.{event}.jsonl") for method, seeds in files.items()
    }
    found = {}
    for method, seeds in files.items():
        found[method] = {"all": measured(together[method], resamples)}
        found[method]["seeds"] = {str(seed): measured(path, resamples) for seed, path in seeds.items()}
        if method != baseline and seeds.keys() == files.get(baseline, {}).keys():
            found[method]["against"] = compared(together[baseline], together[method], resamples)
    return found


def _numbers(scores: Scores) -> dict:
    estimates = {name: asdict(each) for name, each in scores.estimates.items() if each.value is not None}
    return {"n": scores.n, "n_parsed": scores.n_parsed, **estimates}


def _slug(name: str) -> str:
    return name.replace(" ", "-").lower()


def largest_gap(categories: Mapping[str, Mapping]) -> tuple[str, float] | None:
    """Return the category whose mean confidence is farthest from its success rate, and its gap; None without."""
    gaps = {name: each["ocg"]["value"] for name, each in categories.items() if "ocg" in each}
    return max(gaps.items(), key=lambda pair: abs(pair[1]), default=None)
