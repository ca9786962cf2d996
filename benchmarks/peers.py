"""A training step against those of other trainers: ``python benchmarks/peers.py --data DIR``.

The same works (``peering/works.py``) are done by this package (SDFT, SDPO, CaOPD on SDFT) and by TRL 1.16.0 (its
experimental SDFT and SDPO, and its DistillationTrainer with an external teacher of the same size): the same weights,
prompts, number and length of completions, and full-vocabulary reverse KL. Every run is a process of its own on one
thread, and the trainers take turns. TRL has an environment of its own, which is made in the directory, or by

    python -m venv DIR && DIR/bin/pip install -c constraints.txt trl==1.16.0

and named with ``--trl DIR/bin/python``. DIR of ``--data`` holds ``science/`` and ``tooluse/`` (docs/data.md); without
it their works are left out. Finished runs are kept: a second call makes what is missing, and after a change of the
package its own runs alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from caopd.plots import save_figure
from fits import ROOT, Run, RunFailedError, environment, finished, run_all, run_once
from peering.environment import trl_python
from peering.figure import cost_figure
from peering.page import page
from peering.results import OURS, PEERS
from peering.works import WORKS, missing, write_work

BENCHMARKS = Path(__file__).parent
STATED_WORKS = ("short", "science")
"""Works that are also done with completions that state a confidence."""


@dataclass(frozen=True)
class Cell:
    """One run of a trainer on a work."""

    work: str
    trainer: str
    repeat: int
    run: Run

    @property
    def side(self) -> str:
        """Whose trainer it is: ``ours`` or ``peers``."""
        return "peers" if self.trainer in PEERS else "ours"


def run_of(work: str, trainer: str, repeat: int, asked: argparse.Namespace) -> Run:
    """Return the run of a trainer on a work."""
    peer = trainer in PEERS
    script = "peers_trl.py" if peer else "peers_ours.py"
    made_of = [BENCHMARKS / script, BENCHMARKS / "peering" / "clock.py", asked.directory / "works" / f"{work}.json"]
    options = [f"--{name}={getattr(asked, name)}" for name in ("steps", "device", "rollouts")]
    return Run(
        f"{work}-{trainer}-{repeat}",
        (f"benchmarks/{script}", f"{{directory}}/works/{work}.json", trainer, "{run}", *options),
        made_from=hashlib.sha256(b"\0".join(file.read_bytes() for file in made_of)).hexdigest(),
        python=str(asked.trl) if peer else None,
    )


def cost(folder: Path) -> dict:
    """Return what a run has measured."""
    return json.loads((folder / "cost.json").read_text())


def cells(works: list[str], asked: argparse.Namespace) -> list[Cell]:
    """Return all runs in their order: one after the other, every trainer of a work, then again."""
    return [
        Cell(work, trainer, repeat, run_of(work, trainer, repeat, asked))
        for repeat in range(asked.repeats)
        for work in works
        for trainer in (*PEERS, *OURS)
        if not trainer.endswith("-stated") or work in STATED_WORKS
    ]


def collect(made: list[Cell], failures: list[str], skipped: dict[str, str], asked: argparse.Namespace) -> dict:
    """Return the record of all runs that have finished."""
    found = [(each, finished(each.run, asked.directory)) for each in made]
    files = {work: asked.directory / "works" / f"{work}.json" for work in WORKS if work not in skipped}
    works = {work: json.loads(file.read_text()) for work, file in files.items()}
    gpu = {"gpu": torch.cuda.get_device_name()} if asked.device == "cuda" else {}
    return {
        "benchmark": "peers",
        "environment": environment(asked.processes) | gpu,
        "settings": {name: getattr(asked, name) for name in ("steps", "repeats", "device", "rollouts")},
        "prompts": {work: [prompt["num_tokens"] for prompt in content["prompts"]] for work, content in works.items()},
        "runs": [
            {"work": each.work, "trainer": each.trainer, "repeat": each.repeat, **record}
            for each, record in found
            if record is not None
        ],
        "missing": [each.run.name for each, record in found if record is None],
        "failures": failures,
        "skipped": skipped,
    }


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with science/ and tooluse/")
    parser.add_argument("--trl", type=Path, help="Python of an environment with TRL; by default one is made")
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=list(WORKS))
    parser.add_argument("--only", choices=["ours", "peers"], help="whose missing runs are made; by default all")
    parser.add_argument("--steps", type=int, default=2, help="of a run; the first is not counted")
    parser.add_argument("--repeats", type=int, default=3, help="runs of every trainer and work")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rollouts", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time; more than one costs precision")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-peers")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results" / "peers.json", help="and .md beside it")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "peers", help="without its suffix")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    asked = parse_arguments(arguments)
    asked.directory.mkdir(parents=True, exist_ok=True)
    asked.trl = (asked.trl or trl_python(asked.directory / "trl", ROOT / "constraints.txt")).absolute()
    skipped = {name: reason for name, work in WORKS.items() if (reason := missing(work, asked.data))}
    works = [name for name in WORKS if name not in skipped]
    for name in works:
        write_work(name, asked.data, asked.directory)
    every = cells(works, asked)
    chosen = [each for each in every if each.work in asked.works and asked.only in (None, each.side)]
    outcomes = run_all([partial(run_once, each.run, asked.directory, cost) for each in chosen], asked.processes)
    failures = [str(each) for each in outcomes if isinstance(each, RunFailedError)]
    record = collect(every, failures, skipped, asked)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(record, indent=2) + "\n")
    asked.output.with_suffix(".md").write_text(page(record))
    save_figure(cost_figure(record), asked.figure, suffixes=[".svg"])
    print(page(record))


if __name__ == "__main__":
    main()
