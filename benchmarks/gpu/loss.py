"""The chunked loss against Liger's fused one, by ``benchmarks/loss.py``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gpu.sizes import Size

SCRIPT = Path(__file__).parent.parent / "loss.py"


def measure(size: Size, device: str) -> Iterator[dict]:
    """Yield time and memory of every implementation, for chunks of several sizes."""
    tokens, vocabulary, width = size.loss
    for chunk in size.chunks:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "loss.json"
            command = [sys.executable, str(SCRIPT), f"--tokens={tokens}", f"--vocabulary={vocabulary}"]
            command += [f"--hidden={width}", f"--device={device}"]
            command += ["--dtype=bfloat16", f"--chunk-size={chunk}", f"--repeats={size.repeats}", f"--output={output}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found = json.loads(output.read_text())["rows"]
        for row in found:
            if row["implementation"] == "chunked" or chunk == size.chunks[0]:  # the others know no chunks
                chunked = row["implementation"] == "chunked"
                yield {
                    "implementation": f"chunked, {chunk}" if chunked else row["implementation"],
                    "ms": 1000 * row["seconds_median"],
                    "peak MiB": row["peak_growth_mib"],
                    "loss": row["loss"],
                }
