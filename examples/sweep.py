"""A sweep: one `caopd fit` for each combination of settings, and a table of what they have reached.

    python examples/sweep.py quickstart model.method=CaOPD,SDFT data.seed=0,1,2 -- --trainer.max_epochs=50

What stands behind `--` is given to every fit. The same command goes on with a sweep that was cut short: runs that have
ended are left alone, one that was ended in the middle continues. `data.seed` is what the table averages over.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

SEED = "data.seed"
SHOWN = ("accuracy", "ece", "brier", "auroc")
Settings = tuple[tuple[str, str], ...]  # one combination: name and value of each setting


def combinations(given: list[str]) -> list[Settings]:
    """Return every combination of `name=value,value` with the others."""
    parts = [each.partition("=") for each in given]
    choices = [[(name, value) for value in values.split(",")] for name, _, values in parts]
    return list(itertools.product(*choices))


def final(folder: Path, event: str) -> dict[str, float] | None:
    """Return what the run in a folder measured last; None where it has not ended."""
    for file in folder.rglob("metrics.json"):
        return json.loads(file.read_text())["final"][event]
    return None


def fit(config: str, settings: Settings, folder: Path, others: list[str]) -> None:
    """Train, or go on where it was, in a process of its own and a folder of its own."""
    command = [sys.executable, "-m", "caopd", "fit", f"--config={config}", "--ckpt_path=last"]
    options = [*(f"--{name}={value}" for name, value in settings), f"--trainer.default_root_dir={folder}"]
    print(" ".join(f"{name}={value}" for name, value in settings), "->", folder, flush=True)
    subprocess.run([*command, *options, *others], check=True)


def table(found: dict[Settings, dict[str, float]], event: str) -> str:
    """Return mean and standard deviation over seeds, a line for each combination of the other settings."""
    groups = defaultdict(list)
    for settings, metrics in found.items():
        groups[" ".join(f"{name}={value}" for name, value in settings if name != SEED)].append(metrics)
    width = max(map(len, groups))
    lines = [f"{event + ' completions':{width}}  runs  " + "  ".join(f"{name:>13}" for name in SHOWN)]
    for name, runs in groups.items():
        cells = []
        for metric in SHOWN:
            values = [run[metric] for run in runs if run[metric] is not None]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}" if values else "-")
        lines.append(f"{name:{width}}  {len(runs):4}  " + "  ".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def main(config: str, settings: list[str], output: Path, event: str, others: list[str]) -> None:
    """Run what has not been run, then print the table."""
    found = {}
    for each in combinations(settings):
        folder = output / "_".join(f"{name.rpartition('.')[2]}={value}" for name, value in each)
        if final(folder, event) is None:
            fit(config, each, folder, others)
        found[each] = final(folder, event)
    print(table(found, event))
    print(f"\nnext: caopd report {output} --output report")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One caopd fit for each combination of settings.")
    parser.add_argument("config", help="a file, or a name of `caopd configs`")
    parser.add_argument("settings", nargs="+", metavar="NAME=VALUE,VALUE")
    parser.add_argument("--output", type=Path, default=Path("runs/sweep"), help="%(default)s by default")
    parser.add_argument("--event", choices=("greedy", "sampled"), default="sampled", help="%(default)s by default")
    own = sys.argv[1:]
    split = own.index("--") if "--" in own else len(own)
    main(**vars(parser.parse_args(own[:split])), others=own[split + 1 :])
