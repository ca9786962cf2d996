"""Time and memory of the chunked and the dense loss; writes ``benchmarks/results/loss.json`` and ``.md``.

Forward and backward of the divergence from hidden states, with gradients for hidden states and head. On a CPU
every case runs in a fresh process, so that one case's memory is not another's:

- *memory*: growth of the peak over the inputs' memory (resident set on a CPU, allocator on a GPU), one pass;
- *time*: median over passes, the implementations taking turns within one process.

The dense implementation computes the divergence alone; the chunked one also the statistics of every token.
``liger`` (LigerFusedLinearJSD, reverse KL) joins on a GPU where liger_kernel is installed.

    python benchmarks/loss.py --tokens 256 512 1024
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caopd.losses import JSD, Divergence, ForwardKL, LossInputs, ModelOutput, ReverseKL, chunked_divergence

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
DIVERGENCES: dict[str, Divergence] = {"ReverseKL": ReverseKL(), "ForwardKL": ForwardKL(), "JSD": JSD()}


def dense(inputs: Inputs, divergence: Divergence, chunk_size: int) -> Tensor:
    student_hidden_TH, student_head_VH, teacher_hidden_TH, teacher_head_VH = inputs
    student_logits_TV = student_hidden_TH @ student_head_VH.T
    with torch.no_grad():
        teacher_logits_TV = teacher_hidden_TH @ teacher_head_VH.T
    return divergence(student_logits_TV, teacher_logits_TV).mean()


def chunked(inputs: Inputs, divergence: Divergence, chunk_size: int) -> Tensor:
    num_tokens = len(inputs[0])
    weight_T = torch.full((num_tokens,), 1 / num_tokens, device=inputs[0].device)
    first_T = torch.zeros_like(weight_T, dtype=torch.int64)
    streams = LossInputs(weight_T, first_T.bool(), first_T, weight_T, weight_T, 1.0, first_T)
    student, teacher = ModelOutput(*inputs[:2]), ModelOutput(*inputs[2:])
    loss, _ = chunked_divergence(student, teacher, streams, divergence, divergence, chunk_size)
    return loss


def liger(inputs: Inputs, divergence: Divergence, chunk_size: int) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearJSD

    beta = {ForwardKL: 0.0, ReverseKL: 1.0, JSD: JSD().teacher_weight}[type(divergence)]
    return LigerFusedLinearJSD(jsd_beta=beta)(*inputs, None)


IMPLEMENTATIONS: dict[str, Callable[[Inputs, Divergence, int], Tensor]] = {
    "dense": dense,
    "chunked": chunked,
    "liger": liger,
}


def make_inputs(num_tokens: int, settings: dict[str, Any]) -> Inputs:
    """Return random states and heads, made in place: no temporary tensor raises the peak."""
    generator = torch.Generator(settings["device"]).manual_seed(0)
    dtype = getattr(torch, settings["dtype"])

    def normal(rows: int, scale: float) -> Tensor:
        x = torch.empty(rows, settings["hidden"], dtype=dtype, device=settings["device"])
        return x.normal_(0.0, scale, generator=generator)

    scale = 2.0 / settings["hidden"] ** 0.5
    return (
        normal(num_tokens, 1.0).requires_grad_(),
        normal(settings["vocabulary"], scale).requires_grad_(),
        normal(num_tokens, 1.0),
        normal(settings["vocabulary"], scale),
    )


def run_pass(name: str, inputs: Inputs, settings: dict[str, Any]) -> float:
    """Run forward and backward once and return the loss."""
    inputs[0].grad = inputs[1].grad = None
    loss = IMPLEMENTATIONS[name](inputs, DIVERGENCES[settings["divergence"]], settings["chunk_size"])
    loss.backward()
    return loss.item()


def measure_memory(name: str, num_tokens: int, settings: dict[str, Any]) -> dict[str, float]:
    inputs = make_inputs(num_tokens, settings)
    if settings["device"] == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MIB
        loss = run_pass(name, inputs, settings)
        return {"peak_growth_mib": torch.cuda.max_memory_allocated() / MIB - before, "loss": loss}
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize() / MIB
    loss = run_pass(name, inputs, settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_growth_mib": peak - before, "loss": loss}


def measure_time(names: list[str], num_tokens: int, settings: dict[str, Any]) -> dict[str, list[float]]:
    inputs = make_inputs(num_tokens, settings)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(settings["repeats"] + 1):
        for name in names:
            start = time.perf_counter()
            run_pass(name, inputs, settings)
            if turn > 0:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds


MEASUREMENTS: dict[str, Callable] = {"measure_memory": measure_memory, "measure_time": measure_time}


def here(function: str, *arguments: Any) -> Any:
    return MEASUREMENTS[function](*arguments)


def in_fresh_process(function: str, *arguments: Any) -> Any:
    request = json.dumps([function, arguments])
    command = [sys.executable, __file__, "--request", request]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(tokens: list[int], settings: dict[str, Any]) -> list[dict[str, Any]]:
    names = ["dense", "chunked"]
    if settings["device"] == "cuda" and importlib.util.find_spec("liger_kernel"):
        names.append("liger")
    run = here if settings["device"] == "cuda" else in_fresh_process  # an allocator knows what one pass takes
    rows = []
    for num_tokens in tokens:
        seconds = run("measure_time", names, num_tokens, settings)
        for name in names:
            row = {"implementation": name, "tokens": num_tokens}
            row["seconds_median"] = round(statistics.median(seconds[name]), 4)
            row["seconds"] = [round(x, 4) for x in seconds[name]]
            memory = run("measure_memory", name, num_tokens, settings)
            row |= {"peak_growth_mib": round(memory["peak_growth_mib"]), "loss": memory["loss"]}
            rows.append(row)
            print(row, file=sys.stderr)
    return rows


def describe_device(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return models[0].split(":", 1)[1].strip() if models else platform.machine()


def table(record: dict[str, Any]) -> str:
    settings = record["settings"]
    element = torch.finfo(getattr(torch, settings["dtype"])).bits // 8
    head = settings["vocabulary"] * settings["hidden"] * element / MIB
    lines = [
        "# The loss: chunked and dense",
        "",
        f"{record['device']}, threads: {settings['threads']}, torch {record['torch']}, {settings['dtype']}, "
        f"{settings['divergence']}, vocabulary {settings['vocabulary']:,}, hidden size {settings['hidden']}, "
        f"chunks of {settings['chunk_size']} tokens, {record['timestamp']}.",
        "Forward and backward; growth of peak memory over the inputs, "
        f"of which the head's own gradient is {head:.0f} MiB.",
        "",
        "| tokens | implementation | peak growth, MiB | median (range), s | loss |",
        "|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        lines.append(
            f"| {row['tokens']} | {row['implementation']} | {row['peak_growth_mib']} "
            f"| {row['seconds_median']:.3g} ({min(row['seconds']):.3g}-{max(row['seconds']):.3g}) "
            f"| {row['loss']:.7f} |"
        )
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--divergence", default="ReverseKL", choices=list(DIVERGENCES))
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "loss.json", help="a .md goes beside it")
    parser.add_argument("--request", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.request:
        function, call = json.loads(arguments.request)
        torch.set_num_threads(call[-1]["threads"])
        print(json.dumps(here(function, *call)))
        return
    names = ["vocabulary", "hidden", "divergence", "chunk_size", "dtype", "repeats", "threads", "device"]
    settings = {name: getattr(arguments, name) for name in names}
    record = {
        "benchmark": "loss",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": describe_device(arguments.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "settings": settings,
        "rows": measure(arguments.tokens, settings),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
