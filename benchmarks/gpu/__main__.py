"""What only a GPU can show: ``benchmarks/gpu/run``.

The precision of bf16, attention over packed and plain rows, the loss, steps and rollouts with and without shared
prompts, and vLLM's transfer and sleep where vLLM is installed. The model has the shape of SmolLM2-135M and random
weights, which cost the same, so nothing has to be fetched. Every part is a process of its own with a time limit: one
that fails or hangs loses no other. Writes JSON and a page. ``--size tiny --device cpu`` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from gpu.page import page
from gpu.sections import SECTIONS
from gpu.sizes import SIZES
from peering.clock import installed_versions

ROOT = Path(__file__).parent.parent.parent
ROW = "row: "
"""Begins the lines in which the process of a part says a row."""
NUM_LOG_LINES = 12
"""Of a failed part's output, in the record."""


def run_section(name: str, asked: argparse.Namespace, seconds: float) -> dict:
    """Run a part in its own process; return its rows, and why there are no more of them if it failed or took too long.

    Args:
        name: Key of the part.
        asked: Size and device.
        seconds: The longest that it may take.
    """
    command = [sys.executable, "-m", "gpu", "--section", name, "--size", asked.size, "--device", asked.device]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=search_path(), start_new_session=True
    )
    found: dict = {}
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with what it has started
        out, err = process.communicate()
        found["failed"] = f"not done after {seconds:.0f} seconds"
    else:
        if process.returncode != 0:
            said = "\n".join((out + err).splitlines()[-NUM_LOG_LINES:])
            found["failed"] = f"ended with status {process.returncode}:\n{said}"
    lines = [line for line in out.splitlines() if line.startswith(ROW)]
    found["rows"] = [json.loads(line.removeprefix(ROW)) for line in lines]
    return {**found, "seconds": round(time.perf_counter() - start, 1)}


def search_path() -> dict[str, str]:
    """Return the environment in which the package and its benchmarks are found, installed or not."""
    places = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=470.0, help="of all parts; one that takes longer is ended")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json", help="and a .md")
    parser.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    asked = parse_arguments(arguments)
    if asked.section:
        for row in SECTIONS[asked.section].measure(SIZES[asked.size], asked.device):
            print(ROW + json.dumps(row), flush=True)
        return
    record = {
        "benchmark": "gpu",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(asked.device),
        "versions": {"python": platform.python_version(), **installed_versions()},
        "size": asked.size,
        "sections": {},
    }
    end = time.perf_counter() + asked.seconds
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    for name in asked.sections:
        left = max(1.0, end - time.perf_counter())
        record["sections"][name] = run_section(name, asked, min(left, SECTIONS[name].share * asked.seconds))
        asked.output.write_text(json.dumps(record, indent=2) + "\n")  # what is there, should this process be ended
        asked.output.with_suffix(".md").write_text(page(record))
    print(page(record))


if __name__ == "__main__":
    main()
