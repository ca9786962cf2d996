"""Keeps a round's rollouts on disk, as JSON lines: a killed run resumes from them, and researchers read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from caopd.errors import DataError
from caopd.files import written
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

FORMAT = 2
"""Version of the files: it rises when a reader of the version before could not read them, or would misread them."""


@dataclass(frozen=True)
class RoundHeader:
    """The first line of a file: what the other lines are.

    Attributes:
        round: Number of the round, counted from 0.
        settings: The settings that shape a round: name -> value as text.
        num_groups: Number of the lines that follow, one for every prompt.
        sha256: SHA-256 of these lines.
        format: Version of the file.
    """

    round: int
    settings: Mapping[str, str]
    num_groups: int
    sha256: str
    format: int = FORMAT


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

    def save(self, number: int, groups: Sequence[VerifiedGroup], settings: Mapping[str, str]) -> str:
        """Write a round's rollouts, delete those of the oldest round beyond ``keep``, and return the file's SHA-256."""
        digest = save_groups(self.file(number), groups, number, settings)
        if self.keep is not None:
            self.file(number - self.keep).unlink(missing_ok=True)
        return digest


def save_groups(
    path: Path, groups: Sequence[VerifiedGroup], number: int = 0, settings: Mapping[str, str] | None = None
) -> str:
    """Write a header and one group per line, and return the file's SHA-256; the file appears only when it is complete.

    Args:
        path: The file; missing folders are made.
        groups: All groups of a round.
        number: Number of the round.
        settings: The settings that shape a round, as in :class:`RoundHeader`; None is none.

    Raises:
        DiskFullError: There is no room for the file.
    """
    lines = "".join(json.dumps(group, default=_fields) + "\n" for group in groups).encode()
    header = RoundHeader(number, settings or {}, len(groups), sha256(lines).hexdigest())
    content = json.dumps({"format": FORMAT, **_fields(header)}).encode() + b"\n" + lines
    with written(path) as file:
        file.write(content)
    return sha256(content).hexdigest()


def load_groups(path: Path, digest: str | None = None) -> list[VerifiedGroup]:
    """Read what :func:`save_groups` wrote.

    Args:
        path: The file.
        digest: SHA-256 that the file must have; None accepts any.

    Raises:
        DataError: The file is missing, is not as it was written, or is of another version.
    """
    if not path.is_file():
        raise DataError(f"Expected the rollouts of a round in {path}, but there is no such file.")
    content = path.read_bytes()
    first, _, lines = content.partition(b"\n")
    header = _header(path, first)
    rows, found = lines.splitlines(), sha256(lines).hexdigest()
    if found != header.sha256:
        raise DataError(
            f"Expected {path} to hold the rollouts of round {header.round} as they were written, {header.num_groups} "
            f"groups with SHA-256 {header.sha256[:12]}, but got {len(rows)} with {found[:12]}: it was cut, changed or "
            "damaged. Restore the file."
        )
    own = sha256(content).hexdigest()
    if digest is not None and own != digest:
        raise DataError(
            f"Expected {path} to hold the rollouts of the interrupted round as they were written, with SHA-256 "
            f"{digest[:12]}, but got {own[:12]}, a file of round {header.round}: it is another round's or another "
            "run's. Restore the file."
        )
    return _groups(path, rows)


def _header(path: Path, line: bytes) -> RoundHeader:
    """Read the first line.

    Raises:
        DataError: It is no header, or that of another version.
    """
    try:
        row = json.loads(line)
        version = row["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"Expected the first line of {path} to say the `format` of the rollouts below it, but it does not: it "
            "is damaged, or of a version of caopd before formats were numbered. Restore it, or remove it."
        ) from error
    if version != FORMAT:
        older = isinstance(version, int) and version < FORMAT
        raise DataError(
            f"Expected {path} to be of format {FORMAT}, the one that this version of caopd reads, but it is of "
            f"{version!r}: it was written by {'an older' if older else 'a newer'} version. Read it with that one."
        )
    if row.keys() != {field.name for field in fields(RoundHeader)}:
        raise DataError(f"Expected the first line of {path} to be that of format {FORMAT}, but it is damaged.")
    return RoundHeader(**row)


def _fields(carrier: Any) -> dict[str, Any]:  # noqa: ANN401 (any of the dataclasses in caopd.types)
    """Return what is kept of a carrier: what it is not compared by is known only where it was sampled."""
    return {field.name: getattr(carrier, field.name) for field in fields(carrier) if field.compare}


def _groups(path: Path, lines: Sequence[bytes]) -> list[VerifiedGroup]:
    """Read the lines below the header, which may say anything."""
    groups = []
    for number, line in enumerate(lines, start=2):
        try:
            groups.append(_group(json.loads(line)))
            _check(groups[-1])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"Expected line {number} of {path} to hold a prompt's rollouts, as `caopd fit` writes them, but "
                f"it does not ({type(error).__name__}: {str(error)[:200]}). Restore the file, or remove it."
            ) from error
    return groups


def _check(group: VerifiedGroup) -> None:
    """Raise ``ValueError`` where a value is of another kind than the carriers say, which would fail far from here."""
    for each in group.rollouts:
        value = each.reading.value
        if not isinstance(each.rollout.text, str):
            raise ValueError(f"expected `text` to be a text, but got {each.rollout.text!r}")
        if not (value is None or (isinstance(value, float) and 0 <= value <= 1)):
            raise ValueError(f"expected `value` to be a number from 0 to 1 or null, but got {value!r}")


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
        tuple((start, end) for start, end in row["thoughts"]),
    )
