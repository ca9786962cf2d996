"""A real language model on real questions: ``python benchmarks/real_input.py --data DIR``.

SmolLM2-135M-Instruct on science questions and on tool-use requests: supervised fine-tuning in the answer format (SFT),
its export, then CaOPD from that model; and the completions of all held-out rows, greedy and sampled, of both models.
Writes the measures with their intervals (``--output``, JSON, and ``_tables.md`` beside it). DIR holds ``science/`` and
``tooluse/`` in the form that docs/data.md shows. Finished runs are kept below ``--directory``: a second call goes on
where the first one ended, and CaOPD from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from caopd.types import SAMPLED
from comparing.results import EVENTS
from fits import LAST, ROOT, Run, all_or_exit, checkpoint_of, environment, fit, minutes_of, run_all, run_once
from reckoning.page import SHOWN, against, interval, table
from reckoning.results import TRAINED, results
from reckoning.stages import checkpointed, exported, predicted

SUBJECTS = ("physics", "chemistry", "biology", "material")
FILES = {
    "science": {split: [f"science/{each}.{split}.jsonl" for each in SUBJECTS] for split in ("train", "test")},
    "tool_use": {split: [f"tooluse/{split}.jsonl"] for split in ("train", "test")},
}
BEFORE, AFTER = "after SFT", "after CaOPD"


def run_task(name: str, asked: argparse.Namespace, directory: Path) -> dict:
    """Run what is missing of a task, and return what it measured and what it took."""
    files = {split: [f"{{directory}}/data/{each}" for each in named] for split, named in FILES[name].items()}
    source = json.dumps({**files, "validation": files["test"]})
    options = [f"--data.task.init_args.source.files={source}", *(f"--{each}" for each in asked.options)]
    quick = [*options, "--trainer.limit_val_batches=0"]
    sft_config, config = f"configs/smollm2_{name}_sft.yaml", f"configs/smollm2_{name}.yaml"
    sft = fit(f"{name}-sft", [*quick, *(f"--{each}" for each in asked.sft_options)], sft_config)
    taken = {"SFT": run_once(sft, directory, checkpointed)}
    of_sft = str(checkpoint_of(directory / sft.name))
    export = Run(f"{name}-model", ("-m", "caopd", "export", of_sft, "{run}"), made_from=sft.fingerprint)
    run_once(export, directory, exported)
    start = f"--model.source.name_or_path={{directory}}/{export.name}"

    def predict(run_name: str, made_from: Run, *more: str) -> Run:
        places = ("--trainer.default_root_dir={run}", "--predictions.output={run}/predictions.jsonl")
        quiet = "--trainer.enable_progress_bar=false"
        sizes = ("--data.evaluation.num_examples=null", "--data.evaluation.tasks={}")
        arguments = ("-m", "caopd", "predict", "--config", config, start, *options, *sizes, *places, quiet, *more)
        return Run(run_name, arguments, config, made_from.fingerprint)

    before = predict(f"{name}-before", export)
    run_once(before, directory, predicted)
    caopd = fit(f"{name}-caopd", [start, *quick, LAST], config, export.fingerprint)
    taken["CaOPD"] = run_once(caopd, directory, checkpointed)
    after = predict(f"{name}-after", caopd, f"--ckpt_path={checkpoint_of(directory / caopd.name)}")
    taken["completions"] = run_once(after, directory, predicted)
    runs = {BEFORE: {0: directory / before.name}, AFTER: {0: directory / after.name}}
    with TemporaryDirectory() as folder:
        found = results(runs, BEFORE, Path(folder))
    return {"measures": found[TRAINED], "cpu_seconds": {stage: each["cpu_seconds"] for stage, each in taken.items()}}


def page(record: dict) -> str:
    """Return the record as Markdown."""
    versions, stamp = record["environment"]["versions"], record["environment"]["timestamp"]
    parts = [
        "# A real language model on real input: the measures",
        f"`python benchmarks/real_input.py --data DIR`; {stamp[:10]}, one thread a task, torch {versions['torch']}. "
        "One seed, 95 % intervals of held-out rows.",
    ]
    for name, task in record["tasks"].items():
        for event, meaning in EVENTS.items():
            methods = task["measures"][event]
            rows = [
                [method, str(found["all"]["n"]), *(interval(found["all"].get(measure)) for measure in SHOWN)]
                for method, found in methods.items()
            ]
            parts += [f"## {name}, {event}: {meaning}", table(["", "n", *SHOWN], rows), against(methods, BEFORE)]
        parts += [f"## {name}, by category, sampled", _categories(task["measures"][SAMPLED])]
        minutes = {stage: minutes_of(seconds) for stage, seconds in task["cpu_seconds"].items()}
        parts += [table([f"CPU minutes of {stage}" for stage in minutes], [list(minutes.values())])]
    return "\n\n".join(parts) + "\n"


def _categories(methods: dict) -> str:
    names = methods[AFTER]["all"]["categories"]
    measures = ("accuracy", "mean_confidence", "auroc")
    rows = [
        [name, str(each["n"]), *(interval(each.get(measure)) for measure in measures)] for name, each in names.items()
    ]
    return table([AFTER, "n", *measures], rows)


def main() -> None:
    """Run what is missing, and write what came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--processes", type=int, default=1, help="tasks at a time, one thread each")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="of every run but the exports")
    parser.add_argument("--sft_options", nargs="*", default=[], metavar="NAME=VALUE", help="of the SFT alone")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-real-input")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "real_input.json")
    asked = parser.parse_args()
    directory = asked.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "data").unlink(missing_ok=True)
    (directory / "data").symlink_to(asked.data.absolute())
    jobs = [partial(run_task, name, asked, directory) for name in asked.tasks]
    tasks = dict(zip(asked.tasks, all_or_exit(run_all(jobs, asked.processes)), strict=True))
    record = {"environment": environment(asked.processes), "options": asked.options, "tasks": tasks}
    asked.output.write_text(json.dumps(record, indent=1) + "\n")
    asked.output.with_name(f"{asked.output.stem}_tables.md").write_text(page(record))
    print(page(record))


if __name__ == "__main__":
    main()
