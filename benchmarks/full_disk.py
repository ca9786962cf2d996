"""Runs on small file systems that fill up: ``python benchmarks/full_disk.py``; Linux, as root or with user namespaces.

A small run of the quickstart is started on a tmpfs of each size: one has no room for the rollouts, one none for the
second checkpoint. Then the file system is made larger, and the run goes on from its newest checkpoint, or is started
anew where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from caopd.training.checkpoints import sound_checkpoints
from fits import QUICKSTART, ROOT, environment

SIZES_KB = (50, 4000)
"""Of the file systems: a checkpoint has 3.2 MB, the rollouts of a round 30 kB, logs 60 kB, and other files 5 kB."""
SMALL = (
    *("--trainer.max_epochs=2", "--data.task.num_train=64", "--data.task.num_validation=24", "--data.task.num_test=24"),
    *("--data.round.num_prompts_per_round=16", "--data.round.num_rollouts=4", "--data.batch_size=4"),
    *("--data.evaluation.batch_size=16", "--trainer.enable_progress_bar=false"),
)


def mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], check=True)


def fit(folder: Path, checkpoint: Path | None = None) -> subprocess.CompletedProcess:
    resumed = [] if checkpoint is None else [f"--ckpt_path={checkpoint}"]
    command = [sys.executable, "-m", "caopd", "fit", f"--config={QUICKSTART}", *SMALL, *resumed]
    return subprocess.run(
        [*command, f"--trainer.default_root_dir={folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )


def final(folder: Path) -> dict | None:
    """Return the last measurement of the newest run that has one."""
    files = sorted(folder.rglob("metrics.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(files[-1].read_text())["final"] if files else None


def fill(size_kb: int, folder: Path, expected: dict) -> dict:
    """Return what a run does on a file system of this size, and after it was made larger."""
    mount(folder, f"size={size_kb}k")
    run = fit(folder)
    errors = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    checkpoints = list(sound_checkpoints(folder))
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.part"))
    mount(folder, "remount", "size=100m")
    newest = checkpoints[0][0] if checkpoints else None
    again = fit(folder, newest)
    record = {
        "size_kb": size_kb,
        "exit_status": run.returncode,
        "traceback": "Traceback" in run.stderr,
        "error": errors[0].replace(str(folder), "RUNS") if errors else None,
        "left_unfinished": left,
        "checkpoints": {path.name: reason or "sound" for path, reason in checkpoints},
        "exit_status_with_room": again.returncode,
        "same_result": final(folder) == expected,
    }
    subprocess.run(["umount", folder], check=True)
    return record


def table(records: list[dict]) -> str:
    columns = ("size", "exit status", "message", "unfinished files", "checkpoints", "with room")
    rows = [columns, ["---"] * len(columns)]
    for each in records:
        message = (each["error"] or "none").partition(". Nothing")[0] + (" (traceback)" if each["traceback"] else "")
        checkpoints = ", ".join(f"{name} {reason}" for name, reason in each["checkpoints"].items()) or "none yet"
        result = (
            f"exit status {each['exit_status_with_room']}, {'the same' if each['same_result'] else 'another'} result"
        )
        left = ", ".join(each["left_unfinished"]) or "none"
        rows.append([f"{each['size_kb']} kB", str(each["exit_status"]), message, left, checkpoints, result])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_KB, help="of the file systems, in kB")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "full_disk")
    arguments = parser.parse_args()
    if "CAOPD_MOUNTS" not in os.environ:  # mounts of its own, of which nothing is left
        own = ["unshare", "--mount", "--map-root-user", sys.executable, *sys.argv]
        sys.exit(subprocess.run(own, env={**os.environ, "CAOPD_MOUNTS": "1"}, check=False).returncode)
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "whole"), Path(folder, "small")
        whole.mkdir()
        small.mkdir()
        assert fit(whole).returncode == 0
        records = [fill(size, small, final(whole)) for size in arguments.sizes]
    record = {"environment": environment(processes=1), "runs": records}
    arguments.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    note = "Runs on file systems that fill up (`python benchmarks/full_disk.py`), " + record["environment"]["timestamp"]
    arguments.output.with_suffix(".md").write_text(f"{note}.\n\n{table(records)}\n")


if __name__ == "__main__":
    main()
