"""SmolLM2-135M on generated sums: ``python benchmarks/arithmetic.py``.

Supervised fine-tuning (``configs/smollm2_arithmetic_sft.yaml``), which all share; then every method from that model,
with the same number of rollouts (``configs/smollm2_arithmetic.yaml``), for seeds that nothing was tuned on; then the
completions of held-out questions, greedy and sampled: of the kinds that were trained on, of more digits, of another
operator and, with ``--data``, of physics. Writes the measures of every method with their intervals (``--output``, JSON
and a page beside it) and the figure of confidence against success by kind, and prints what was aimed at.

The runs take hours. What each predicted is kept as a table (``--tables``, in the repository), and a call makes those
that are missing: ``--seeds 11`` today and ``--seeds 11 12`` on another machine tomorrow. A run of the same code that is
finished below ``--directory`` is not made again either; an interrupted method goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from caopd.plots.style import save_figure
from fits import ROOT, all_or_exit, checkpoint_of, environment, finished_or_error, run_all, run_once
from reckoning.figure import kinds_figure
from reckoning.kept import TABLES, Kept, keep, kept, settings_of, unpack
from reckoning.page import page, targets
from reckoning.results import results
from reckoning.settings import BASELINE, METHODS, START, Setting, export_run, method_run, predict_run, sft_run, slug
from reckoning.stages import checkpointed, exported, predicted


def settings_of_run(method: str, seed: int, setting: Setting) -> str:
    """Return a hash of what a method on a seed is asked to do, from the SFT on."""
    nowhere = Path("checkpoint")
    sft = sft_run(setting)
    made_from = export_run(sft, nowhere)
    fitted = [] if method == START else [method_run(method, seed, setting, made_from)]
    found = predict_run(method, seed, setting, made_from, nowhere if fitted else None)
    return settings_of([sft, *fitted, found])


def run_one(method: str, seed: int, setting: Setting, directory: Path, tables: Path) -> dict:
    """Run what is missing of a method on a seed, and keep its predictions."""
    sft = sft_run(setting)
    export = export_run(sft, checkpoint_of(directory / "sft"))
    made_from, fitted, checkpoint = export, {}, None
    if method != START:
        made_from = method_run(method, seed, setting, export)
        fitted = run_once(made_from, directory, checkpointed)
        checkpoint = checkpoint_of(directory / made_from.name)
    found = run_once(predict_run(method, seed, setting, made_from, checkpoint), directory, predicted)
    taken = {"sft": finished_or_error(sft, directory), "fit": fitted, "predicting": found}
    record = {
        "method": method,
        "seed": seed,
        "settings": settings_of_run(method, seed, setting),
        "cpu_seconds": {name: each.get("cpu_seconds", 0) for name, each in taken.items()},
        "environment": environment(setting.processes),
    }
    keep(f"{slug(method)}-{seed}", directory / found["name"], record, tables)
    print(f"kept: {method}, seed {seed}", flush=True)
    return record


def write(every: Sequence[Kept], asked: Mapping[str, list], output: Path, figure: Path) -> None:
    """Measure all kept runs, and write record, page and figure."""
    with TemporaryDirectory() as name:
        folders: dict[str, dict[int, Path]] = {}
        for each in every:
            method, seed = each.key
            folders.setdefault(method, {})[seed] = unpack(each, Path(name))
        record = {
            "asked": asked,
            "runs": [each.record for each in every],
            "tasks": results(folders, BASELINE, Path(name)),
        }
    output.write_text(json.dumps(record, indent=1) + "\n")
    output.with_suffix(".md").write_text(page(record))
    save_figure(kinds_figure(record), figure.with_suffix(""), (".svg",))
    print(f"{targets(record)}\n\npage: {output.with_suffix('.md')}\nfigure: {figure}")


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
    parser.add_argument("--data", type=Path, help="folder with science questions (docs/data.md), predicted as well")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-arithmetic")
    parser.add_argument("--tables", type=Path, default=TABLES, help="where predictions are kept")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "arithmetic.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "arithmetic.svg")
    asked = parser.parse_args()
    directory = asked.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    options = {name: tuple(f"--{each}" for each in getattr(asked, name)) for name in _OPTIONS}
    sizes = {"num_test": asked.num_test, "num_transfer": asked.num_transfer, "processes": asked.processes}
    setting = Setting(**options, **sizes, with_science=asked.data is not None)
    if asked.data is not None:
        (directory / "data").unlink(missing_ok=True)
        (directory / "data").symlink_to(asked.data.absolute())
    known = {(method, seed): settings_of_run(method, seed, setting) for method in asked.methods for seed in asked.seeds}
    there = {each.key for each in kept(known, asked.tables)}
    if missing := [key for key in known if key not in there]:
        sft = sft_run(setting)
        run_once(sft, directory)
        run_once(export_run(sft, checkpoint_of(directory / "sft")), directory, exported)
        jobs = [partial(run_one, *key, setting, directory, asked.tables) for key in missing]
        all_or_exit(run_all(jobs, asked.processes))
    write(kept(known, asked.tables), {name: getattr(asked, name) for name in _OPTIONS}, asked.output, asked.figure)


_OPTIONS = ("options", "sft_options", "fit_options")


if __name__ == "__main__":
    main()
