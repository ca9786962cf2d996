"""Keeps a round's rollouts on disk, as JSON lines: a killed run resumes from them, and researchers read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from caopd.errors import DataError
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedGroup,
    VerifiedRollout,
)


@dataclass(frozen=True)
class RoundBuffer:
    """The files with the rollouts of a run's last rounds.

    Attributes:
        directory: Folder of the files.
        keep: Number of rounds whose rollouts stay; None keeps all.
    """

    directory: Path
    keep: int | None

    def file(self, number: int) -> Path:
        """Return the file of a round's rollouts."""
        return self.directory / f"round_{number:05d}.jsonl"

    def save(self, number: int, groups: Sequence[VerifiedGroup]) -> str:
        """Write a round's rollouts, delete those of the oldest round beyond ``keep``, and return the file's SHA-256."""
        digest = save_groups(self.file(number), groups)
        if self.keep is not None:
            self.file(number - self.keep).unlink(missing_ok=True)
        return digest


def save_groups(path: Path, groups: Sequence[VerifiedGroup]) -> str:
    """Write one group per line, and return the file's SHA-256; the file appears only when it is complete.

    Args:
        path: The file; missing folders are made.
        groups: All groups of a round.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(group, default=_fields) + "\n" for group in groups).encode()
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return sha256(content).hexdigest()


def load_groups(path: Path, digest: str | None = None) -> list[VerifiedGroup]:
    """Read what :func:`save_groups` wrote.

    Args:
        path: The file.
        digest: SHA-256 that the file must have; None accepts any.

    Raises:
        DataError: The file is missing, or is not as it was written.
    """
    if not path.is_file():
        raise DataError(
            f"Expected the rollouts of the interrupted round in {path}, but there is no such file. Resume from a "
            "checkpoint that was written at the end of a round instead."
        )
    content = path.read_bytes()
    if digest is not None and sha256(content).hexdigest() != digest:
        raise DataError(
            f"Expected {path} to hold the rollouts of the interrupted round as they were written, but it has been "
            "changed since, or is another run's: training would go on with other rollouts. Restore the file, or resume "
            "from a checkpoint that was written at the end of a round."
        )
    return [_group(json.loads(line)) for line in content.decode().splitlines()]


def _fields(carrier: Any) -> dict[str, Any]:  # noqa: ANN401 (any of the dataclasses in caopd.types)
    return {field.name: getattr(carrier, field.name) for field in fields(carrier)}


def _group(row: dict[str, Any]) -> VerifiedGroup:
    rollouts = tuple(_verified(verified) for verified in row["rollouts"])
    example, prompt_ids = Example(**row["example"]), tuple(row["prompt_ids"])
    return VerifiedGroup(example, prompt_ids, rollouts, tuple(row["mu_hats"]))


def _verified(row: dict[str, Any]) -> VerifiedRollout:
    rollout, verdict, reading = row["rollout"], row["verdict"], row["reading"]
    return VerifiedRollout(
        Rollout(
            token_ids=tuple(rollout["token_ids"]),
            text=rollout["text"],
            stop_reason=StopReason(rollout["stop_reason"]),
            logprobs=tuple(rollout["logprobs"]),
            policy_version=rollout["policy_version"],
        ),
        verdict
        and Verdict(verdict["correct"], verdict["answer"], AnswerOutcome(verdict["outcome"]), verdict["feedback"]),
        ConfidenceReading(
            reading["value"],
            None if reading["span"] is None else (reading["span"][0], reading["span"][1]),
            ConfidenceOutcome(reading["outcome"]),
        ),
        row["rewards"],
    )
