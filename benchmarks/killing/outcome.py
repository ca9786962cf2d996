"""What a run has left behind, as plain data that can be compared bit by bit with another run's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SECONDS = "time/"
"""Prefix of the tags that are left out: seconds differ, and those of a phase in a process that was killed are lost."""
OF_THE_DIRECTORY = "/caopd_run/"
"""Keys of a checkpoint that say where the run is, and what its loggers call it; they are left out."""
_OF_DIRECTORIES = re.compile(r"[^\s'\"]*/lightning_logs/[^/\s'\"]+/")
Outcome = dict[str, Any]
"""Where a value stands -> the value, or a hash of it."""


def outcome(root: Path) -> Outcome:
    """Return all that the runs below a folder have left: checkpoints, files and logs, seconds left out.

    Args:
        root: ``default_root_dir`` of a run and of those that resumed it. Where these have directories of their own,
            a later one's file replaces an earlier one's of the same name.
    """
    found: Outcome = {}
    files = sorted(path for path in root.rglob("*") if path.is_file() or path.is_symlink())
    runs = sorted({path for path in root.glob("lightning_logs/*") if path.is_dir()}, key=_number)
    for run in runs:
        for path in files:
            if run in path.parents:
                found[f"file {path.relative_to(run)}"] = path
    found = {name: path for name, path in found.items() if "/events." not in name and " events." not in name}
    content = {name: values for name, path in found.items() for name, values in _content(name, path).items()}
    return content | logged(runs)


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Return where two outcomes differ, in words.

    Args:
        expected: What the run that was not killed has left.
        found: What the other one has left.
    """
    lines = [f"{name}: is missing" for name in expected.keys() - found.keys()]
    lines += [f"{name}: is there, but not expected" for name in found.keys() - expected.keys()]
    both = expected.keys() & found.keys()
    lines += [f"{name}: {found[name]} instead of {expected[name]}" for name in both if expected[name] != found[name]]
    return sorted(lines)


def logged(runs: list[Path]) -> Outcome:
    """Return every value in the logs of some runs, as TensorBoard shows them: tag and step -> value.

    Args:
        runs: Run directories. A value that is written twice, as a batch that is trained on again writes it, must be
            the same: both are returned where it is not.
    """
    written = [_events(file) for run in runs for file in sorted(run.rglob("events.out.*"))]
    shown = {name: value for run in runs for name, value in _events(run)}
    twice: dict[str, set[str]] = {}
    for name, value in (pair for events in written for pair in events):
        twice.setdefault(name, set()).add(value)
    return {name: " and ".join(sorted(twice[name])) for name in shown}


def _events(path: Path) -> list[tuple[str, str]]:
    """Return all events of a file or of a run: tag and step, and the value or its hash."""
    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    scalars = [(tag, each.step, each.value.hex()) for tag in tags["scalars"] for each in events.Scalars(tag)]
    images = [(tag, e.step, _sha256(e.encoded_image_string)) for tag in tags["images"] for e in events.Images(tag)]
    texts = [
        (tag, e.step, _sha256(e.tensor_proto.SerializeToString()))
        for tag in tags["tensors"]
        for e in events.Tensors(tag)
    ]
    every = [*scalars, *images, *texts]
    return [(f"log {tag} at {step}", value) for tag, step, value in every if not tag.startswith(SECONDS)]


def _number(run: Path) -> tuple[int, str]:
    digits = run.name.rpartition("-run")[2]
    return (int(digits) if digits.isdecimal() else -1, run.name)


def _content(name: str, path: Path) -> Outcome:
    if path.suffix == ".ckpt" or path.name == "meta.pt":  # a whole checkpoint, or a sharded one's part without shards
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        leaves = _leaves(checkpoint)
        return {f"{name} {where}": value for where, value in leaves if not where.startswith(OF_THE_DIRECTORY)}
    # These say from where the run went on, where its shards are, and the sums of such files.
    if path.name in ("config.yaml", "hparams.yaml", ".metadata", "checksums.json"):
        return {name: "is there"}
    if path.suffix == ".json":
        return {f"{name} {where}": value for where, value in _leaves(json.loads(path.read_text()))}
    return {name: _sha256(path.read_bytes())}


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{where}/{_relative(str(key))}")
    elif isinstance(value, list | tuple):
        yield f"{where} length", len(value)
        for index, each in enumerate(value):
            yield from _leaves(each, f"{where}/{index}")
    elif isinstance(value, torch.Tensor):
        yield where, f"{value.dtype} {tuple(value.shape)} {_sha256(value.contiguous().numpy().tobytes())}"
    else:
        yield where, _relative(repr(value))


def _relative(text: str) -> str:
    return _OF_DIRECTORIES.sub("", text)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
