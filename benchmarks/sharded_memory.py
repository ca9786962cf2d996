"""What sharded training holds in memory: ``OMP_NUM_THREADS=1 python benchmarks/sharded_memory.py``.

``caopd fit`` on an untrained model of 46 million weights, in one process and in several that share it (FSDP2), saved as
shards and as one file. While a run lasts, the proportional set sizes of its processes are read again and again from
``/proc`` and added up: pages that processes share count once. All sizes are in models, the bytes of the weights in
float32, beyond what the processes held before a model was loaded. Models that several processes share are loaded from
files of 16 bits, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from transformers import LlamaConfig, LlamaForCausalLM

from caopd.models.tiny import build_tokenizer
from fits import QUICKSTART, ROOT, RunFailedError, environment

RESULTS = ROOT / "benchmarks" / "results"
SIZES = {
    **{"vocab_size": 16384, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12},
    **{"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 1024},
}
"""A fifth of the weights is the embedding, tied to the head: as in SmolLM2-135M."""
SETTINGS = {
    "trainer.max_epochs": 2,
    "trainer.limit_val_batches": 0,
    "trainer.enable_progress_bar": "false",
    "trainer.enable_checkpointing": "false",
    "trainer.callbacks": "null",
    "model.source.attn_implementation": "sdpa",
    "data.task.num_train": 64,
    "data.round.num_prompts_per_round": 4,
    "data.round.num_rollouts": 2,
    "data.engine.batch_size": 8,
}
"""Beside the quickstart's. Sequences are short and few, so that weights, and what belongs to them, are what is held."""
FILES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Dtypes that the model's files have; it is trained in float32."""
STRATEGY = "caopd.training.sharded.AtomicModelParallelStrategy"
MOMENTS = ("before", "loaded", "trained", "saving", "saved")
NO_SHARDS = 0.05
"""Models that processes gain at most before they have shards."""
SECONDS_OF_REST = 1.0
SECONDS_BETWEEN = 0.03


class Marks(Callback):
    """Writes down, in every process, when it comes to the moments between which memory is looked at.

    Args:
        folder: Of the files, one for each process.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """No model is loaded yet."""
        if stage == "fit":
            self._mark(trainer, "before")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The model is loaded, and sharded; nothing is sampled yet."""
        self._mark(trainer, "loaded")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: object) -> None:
        """An optimizer step has been made; save a checkpoint."""
        self._mark(trainer, "trained")
        if trainer.global_step > 1:
            self._mark(trainer, "saving")
            trainer.save_checkpoint(self._folder / "measured.ckpt")
            self._mark(trainer, "saved")

    def _mark(self, trainer: Trainer, moment: str) -> None:
        trainer.strategy.barrier()
        with (self._folder / f"process{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps({"moment": moment, "seconds": time.monotonic()}) + "\n")
        time.sleep(SECONDS_OF_REST)
        trainer.strategy.barrier()


def write_models(directory: Path) -> float:
    """Write the untrained model with a tokenizer, in a folder for each dtype; return the bytes of it in float32."""
    tokenizer = build_tokenizer()
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **special, tie_word_embeddings=True))
    for name, dtype in FILES.items():
        model.to(dtype).save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    return 4.0 * sum(weight.numel() for weight in model.parameters())


def held(process: int) -> float:
    """Return the proportional set size of a process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0.0)


def watched(command: Sequence[str], folder: Path, num_processes: int) -> list[tuple[float, list[float]]]:
    """Run a fit, and return what its processes held: seconds, and bytes of each of them."""
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": path}
    samples: list[tuple[float, list[float]]] = []
    with (folder / "log.txt").open("w") as log:
        fit = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ, cwd=ROOT)
        while fit.poll() is None:
            processes = [int(file.stem.removeprefix("process")) for file in folder.glob("process*.jsonl")]
            if len(processes) == num_processes:
                samples.append((time.monotonic(), [held(each) for each in processes]))
            time.sleep(SECONDS_BETWEEN)
    if fit.returncode:
        raise RunFailedError((folder / "log.txt").read_text()[-4000:])
    return samples


def measured(model: Path, num_processes: int, whole: bool, size: float) -> dict:
    """Return what a fit of so many processes held, in models: at rest at every moment, and at most before the next.

    Args:
        model: Folder of the model; its name is the dtype of its files.
        num_processes: Of the fit; several share the model.
        whole: Whether they save it as one file.
        size: Bytes of a model.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marks = json.dumps({"class_path": "sharded_memory.Marks", "init_args": {"folder": name}})
        options = {**SETTINGS, "model.source.name_or_path": model, "trainer.default_root_dir": folder / "run"}
        options["data.batch_size"] = 4 // num_processes
        if num_processes > 1:
            options |= {
                "trainer.devices": num_processes,
                "trainer.inference_mode": "false",
                "trainer.strategy": STRATEGY,
                "trainer.strategy.data_parallel_size": num_processes,
                "trainer.strategy.tensor_parallel_size": 1,
                "trainer.strategy.save_distributed_checkpoint": str(not whole).lower(),
            }
        command = [sys.executable, "-m", "caopd", "fit", f"--config={ROOT / QUICKSTART}"]
        command += [*(f"--{key}={value}" for key, value in options.items()), f"--trainer.callbacks+={marks}"]
        samples = watched(command, folder, num_processes)
        lines = next(folder.glob("process*.jsonl")).read_text().splitlines()
    return {
        "processes": num_processes,
        "files": model.name,
        "one_file": whole,
        **summary(samples, [json.loads(line) for line in lines], size),
    }


def summary(samples: Sequence[tuple[float, list[float]]], marks: Sequence[Mapping], size: float) -> dict:
    """Return sizes of all processes together, and of the largest one, in models beyond what was held before."""
    starts = [mark["seconds"] for mark in marks]
    before = None
    found: dict[str, dict[str, list[float]]] = {}
    for mark, start, end in zip(marks, starts, [*starts[1:], starts[-1] + SECONDS_OF_REST], strict=True):
        rest = [sizes for at, sizes in samples if start + SECONDS_OF_REST / 3 < at < start + SECONDS_OF_REST]
        after = [sizes for at, sizes in samples if start < at < end]
        least = min(rest, key=sum)
        before = before or least
        part = found.setdefault(mark["moment"], {"rest": [], "rest_largest": [], "peak": []})
        part["rest"].append(round((sum(least) - sum(before)) / size, 3))
        part["rest_largest"].append(round(max(now - then for now, then in zip(least, before, strict=True)) / size, 3))
        part["peak"].append(round((max(map(sum, after)) - sum(before)) / size, 3))
    assert before is not None
    reader = max(range(len(before)), key=lambda number: max(sizes[number] for at, sizes in samples if at < starts[1]))
    reading = [sizes for at, sizes in samples if at < starts[1] and _is_alone(reader, sizes, before, size)]
    found["before"]["reading"] = [round((max(map(sum, reading)) - sum(before)) / size, 3)]
    return {"before_mib": round(sum(before) / 2**20), "model_mib": round(size / 2**20), "moments": found}


def _is_alone(reader: int, sizes: Sequence[float], before: Sequence[float], size: float) -> bool:
    """Return whether the other processes have no shards yet."""
    others = [now - then for number, (now, then) in enumerate(zip(sizes, before, strict=True)) if number != reader]
    return sum(others) < NO_SHARDS * size


def table(record: Mapping) -> str:
    """Return the record as Markdown."""
    runs, one = record["runs"], next((run for run in record["runs"] if run["processes"] == 1), None)
    versions, before = record["versions"], ", ".join(str(run["before_mib"]) for run in runs)
    lines = [
        "# Memory of sharded training",
        "",
        f"`OMP_NUM_THREADS=1 python benchmarks/sharded_memory.py`; {record['cpus']} CPU cores, one thread each; "
        f"{record['timestamp'][:10]}; torch {versions['torch']}, Lightning {versions['lightning']}, transformers "
        f"{versions['transformers']}. An untrained Llama of {runs[0]['model_mib']} MiB in float32, a fifth of it "
        "embedding; CaOPD with AdamW and a moving average as the teacher: five models of weights, gradients, two "
        "moments and teacher. Sizes are in models: proportional set sizes of all processes together, beyond what they "
        f"held before a model was loaded ({before} MiB). *Reading*: the model is read, and nobody has shards yet. "
        "*Rest* is between two steps.",
        "",
        "| processes | files | checkpoint | reading, most | loading, most | loaded | sampling and training, most "
        "| at rest | at rest, each | of one process's | saving, beyond rest |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        found, number = run["moments"], run["processes"]
        rest, save = found["trained"]["rest"][-1], found["saving"]["peak"][-1] - found["saving"]["rest"][-1]
        share = "-" if one is None else f"{rest / number / one['moments']['trained']['rest'][-1]:.2f}"
        most = max(found["loaded"]["peak"] + found["trained"]["peak"])
        checkpoint, loading = "one file" if run["one_file"] else "shards", found["before"]
        lines.append(
            f"| {number} | {run['files']} | {checkpoint} | {loading['reading'][0]:.2f} | {loading['peak'][0]:.2f} | "
            f"{found['loaded']['rest'][0]:.2f} | {most:.2f} | {rest:.2f} | {rest / number:.2f} | {share} | {save:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=Path, default=RESULTS / "sharded_memory.json")
    arguments = parser.parse_args()
    record = {**environment(1), "runs": []}
    with tempfile.TemporaryDirectory() as directory:
        size = write_models(Path(directory))
        for number in arguments.processes:
            cases = [("float32", True)] if number == 1 else [("float32", False), ("float32", True), ("bfloat16", False)]
            for files, whole in cases:
                record["runs"].append(measured(Path(directory, files), number, whole, size))
                print(json.dumps(record["runs"][-1]), flush=True)
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(table(record))


if __name__ == "__main__":
    main()
