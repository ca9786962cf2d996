"""The chunked loss against Liger's fused one, by ``benchmarks/loss.py``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu.sizes import Size

SCRIPT = Path(__file__).parent.parent / "loss.py"
CHUNKS = (64, 256, 1024)


def measure(size: Size, device: str) -> dict:
    """Return time and memory of every implementation, for chunks of several sizes."""
    rows = []
    for chunk in CHUNKS:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "loss.json"
            command = [sys.executable, str(SCRIPT), f"--tokens={size.loss_tokens}", f"--device={device}"]
            command += [f"--vocabulary={size.loss_vocabulary}", f"--hidden={16 * (size.hidden // 9)}"]
            command += ["--dtype=bfloat16", f"--chunk-size={chunk}", f"--repeats={size.repeats}", f"--output={output}"]
            subprocess.run(command, check=True, capture_output=True)
            found = json.loads(output.read_text())["rows"]
        for row in found:
            if row["implementation"] == "chunked" or chunk == CHUNKS[0]:  # the others know no chunks
                chunked = row["implementation"] == "chunked"
                rows.append(
                    {
                        "implementation": f"chunked, {chunk}" if chunked else row["implementation"],
                        "ms": 1000 * row["seconds_median"],
                        "peak MiB": row["peak_growth_mib"],
                        "loss": row["loss"],
                    }
                )
    return {"rows": rows}
