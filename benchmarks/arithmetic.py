"""SmolLM2-135M on generated sums: ``python benchmarks/arithmetic.py``.

Supervised fine-tuning (``configs/smollm2_arithmetic_sft.yaml``), which all share; then every method from that model,
with the same number of rollouts (``configs/smollm2_arithmetic.yaml``), for seeds that nothing was tuned on; then the
completions of held-out questions, greedy and sampled: of the kinds that were trained on, of more digits and of another
operator. Writes the measures of every method with their intervals (``--output``, JSON and a page beside it) and the
figure of confidence against success by kind, and prints what was aimed at. Finished runs are kept: a second call makes
what is missing.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from caopd.plots.style import save_figure
from fits import ROOT, RunFailedError, all_or_exit, environment, run_all, run_once
from reckoning.figure import kinds_figure
from reckoning.page import page, targets
from reckoning.results import predictions_of, results
from reckoning.settings import BASELINE, METHODS, START, Setting, export_run, method_run, predict_run, sft_run


def checkpoint_of(folder: Path) -> Path:
    """Return the last checkpoint of a run.

    Raises:
        RunFailedError: It has none.
    """
    found = sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunFailedError(f"Expected a checkpoint below {folder}, but there is none.")
    return found[-1]


def predicted(folder: Path) -> dict:
    """Return nothing but a look: the result of a prediction is its files."""
    predictions_of(folder, "trained", "greedy")
    return {}


def run_one(method: str, seed: int, setting: Setting, directory: Path) -> dict:
    """Return the record of a method on a seed; run what is missing."""
    sft = sft_run(setting)
    export = export_run(sft, checkpoint_of(directory / "sft"))
    made_from, fitted, checkpoint = export, {}, None
    if method != START:
        made_from = method_run(method, seed, setting, export)
        fitted = run_once(made_from, directory, _nothing)
        checkpoint = checkpoint_of(directory / made_from.name)
    found = run_once(predict_run(method, seed, setting, made_from, checkpoint), directory, predicted)
    measured = {"cpu_seconds": fitted.get("cpu_seconds", 0), "predicting": found["cpu_seconds"]}
    return {"method": method, "seed": seed, "folder": str(directory / found["name"]), **measured}


def _nothing(folder: Path) -> dict:
    return {"checkpoint": str(checkpoint_of(folder))}


def main() -> None:
    """Run what is missing and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=[START, *METHODS], default=[START, *METHODS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--num_test", type=int, default=Setting.num_test)
    parser.add_argument("--num_transfer", type=int, default=Setting.num_transfer)
    for name, of in (("options", "all runs"), ("sft_options", "the SFT"), ("fit_options", "the methods")):
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="NAME=VALUE", help=f"further options of {of}")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-arithmetic")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "arithmetic.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "arithmetic.svg")
    asked = parser.parse_args()
    directory = asked.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    options = {name: tuple(f"--{each}" for each in getattr(asked, name)) for name in _OPTIONS}
    setting = Setting(**options, num_test=asked.num_test, num_transfer=asked.num_transfer)
    sft = run_once(sft_run(setting), directory)
    run_once(export_run(sft_run(setting), checkpoint_of(directory / "sft")), directory, _model)
    jobs = [partial(run_one, method, seed, setting, directory) for seed in asked.seeds for method in asked.methods]
    records = all_or_exit(run_all(jobs, asked.processes))
    folders = {
        method: {each["seed"]: Path(each["folder"]) for each in records if each["method"] == method}
        for method in asked.methods
    }
    record = {
        "environment": environment(asked.processes),
        "asked": {name: list(getattr(asked, name)) for name in ("seeds", *_OPTIONS)},
        "sft": {"cpu_seconds": sft["cpu_seconds"], **sft["final"]},
        "runs": [{key: each[key] for key in ("method", "seed", "cpu_seconds", "predicting")} for each in records],
        "tasks": results(folders, BASELINE, directory),
    }
    asked.output.write_text(json.dumps(record, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(page(record))
    save_figure(kinds_figure(record), asked.figure.with_suffix(""), (".svg",))
    print(f"{targets(record)}\n\npage: {asked.output.with_suffix('.md')}\nfigure: {asked.figure}")


_OPTIONS = ("options", "sft_options", "fit_options")


def _model(folder: Path) -> dict:
    return {"model": str(next(folder.rglob("*.safetensors")).parent)}


if __name__ == "__main__":
    main()
