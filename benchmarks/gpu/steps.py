"""Steps and rollouts as a user runs them, with and without prompts that are shared."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from caopd.models import ModelSource
from gpu.sizes import Size
from peering.works import WORKS, Work, content_of, digit_examples

SCRIPT = Path(__file__).parent.parent / "peers_ours.py"
SHORTEST = 120
"""Length of a prompt, at least: the embedded tokenizer reads characters, of which the question alone has many."""


def measure(size: Size, device: str) -> Iterator[dict]:
    """Yield the seconds of a step's parts and its memory, of every group and way."""
    with tempfile.TemporaryDirectory() as folder:
        size.write(Path(folder) / "model")
        for shape in size.step_groups:
            for way in ("shared", "alone"):
                length = max(shape[0], SHORTEST)
                named = dict(zip(("prompt", "completion", "G"), (length, *shape[1:]), strict=True))
                yield {**named, "prompts": way, **one(size, device, (length, *shape[1:]), way, Path(folder))}


def one(size: Size, device: str, shape: tuple[int, int, int], way: str, folder: Path) -> dict[str, float]:
    """Return what the steps of a run cost."""
    prompt, completion, group = shape
    tokenizer = ModelSource(str(folder / "model")).load_tokenizer()
    num_prompts, num_rollouts = (size.num_prompts, group) if way == "shared" else (size.num_prompts * group, 1)
    work = Work(way, "model", "digits", num_prompts, prompt, num_rollouts, completion, group, WORKS["short"].targets)
    file = folder / "work.json"
    file.write_text(json.dumps(content_of(work, digit_examples(work, tokenizer), tokenizer, "model")))
    run = folder / f"{way}-{prompt}"
    command = [sys.executable, str(SCRIPT), str(file), "sdft", str(run), f"--steps={size.repeats + 1}"]
    subprocess.run([*command, f"--device={device}"], check=True, stdout=subprocess.DEVNULL)
    cost = json.loads((run / "cost.json").read_text())
    parts = {part: statistics.median(step[part] for step in cost["steps"]) for part in cost["steps"][0]}
    return {**parts, "peak MiB": cost["peak_mib"]}
