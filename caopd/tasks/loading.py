"""Loads the rows of data sets from files, saved data sets or the hub. No row is skipped silently."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from caopd.errors import ConfigError, DataError
from caopd.tasks.base import SPLITS, check_split
from caopd.tasks.rows import SUFFIXES, Row, load_dataset_splits, read_files
from caopd.types import Example


@dataclass(frozen=True)
class DataSource:
    """Says where a task's rows are, which of them make which split, and what the columns are called.

    Exactly one of ``path`` and ``files`` is given.

    Attributes:
        path: A hub id, a directory written by ``save_to_disk``, a directory of data files, or one file.
        files: File or files (.jsonl, .json, .csv, .parquet) of every split.
        name: Configuration of a hub data set.
        revision: Commit, tag or branch of a hub data set.
        splits: Split of the task -> split of the source, where the names differ. ``{validation: test}``
            validates on the test rows.
        shares: Split of the task -> share of the source's split that it takes, by a hash of the row's id.
            Such shares are disjoint: ``splits: {validation: train}`` with
            ``shares: {train: 0.9, validation: 0.1}`` holds out about a tenth of the training rows.
        seed: Seed of that hash.
        columns: Field of the task -> column of the source, where the names differ. ``answer.value`` is the field
            ``value`` of a column ``answer`` of objects; several columns make a list of their values.

    Examples:
        >>> DataSource(files={"train": "a.jsonl"}, splits={"validation": "train"}).source_split("validation")
        'train'
    """

    path: str | None = None
    files: dict[str, str | list[str]] | None = None
    name: str | None = None
    revision: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 42
    columns: dict[str, str | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.files is None):
            raise ConfigError("Expected exactly one of `path` and `files` in a data source.")
        if self.files is not None and (not self.files or not all(self.files.values())):
            raise ConfigError("Expected at least one split in `files`, and at least one file for every split.")
        for key in ("splits", "shares"):
            for split in getattr(self, key):
                if split not in SPLITS:
                    raise ConfigError(
                        f"Expected the keys of `{key}` in a data source to be splits of the task "
                        f"({', '.join(SPLITS)}), but got {split!r}."
                    )
        for source_split in map(self.source_split, SPLITS):
            self._check_shares(source_split)

    def source_split(self, split: str) -> str:
        """Return the split of the source that the task's ``split`` reads from."""
        return self.splits.get(split, split)

    def interval(self, split: str) -> tuple[float, float]:
        """Return the part of [0, 1) into which the hashes of the rows of ``split`` fall."""
        start = 0.0
        for other in SPLITS:
            if self.source_split(other) == self.source_split(split) and other in self.shares:
                if other == split:
                    return start, start + self.shares[other]
                start += self.shares[other]
        return 0.0, 1.0

    def _check_shares(self, source_split: str) -> None:
        sharing = [split for split in SPLITS if self.source_split(split) == source_split]
        shares = {split: self.shares[split] for split in sharing if split in self.shares}
        if any(not 0 < share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
            raise ConfigError(
                f"Expected the `shares` of the source's split {source_split!r} to be positive and to add up "
                f"to at most 1, but got {shares}."
            )
        if shares and len(shares) < len(sharing):
            raise ConfigError(
                f"Expected `shares` for each of {', '.join(sharing)}, which all read from the source's split "
                f"{source_split!r}, but got {shares}: the others would overlap with them."
            )


def load_rows(source: DataSource, split: str) -> list[Row]:
    """Read the source's split that the task's ``split`` reads from, whole, with the columns renamed.

    Shares are not applied here, because they go by the examples' ids: see :func:`in_share`.

    Args:
        source: Says where the rows are.
        split: One of :data:`caopd.tasks.base.SPLITS`.

    Raises:
        ConfigError: An unknown split, or a split that the source does not have.
        DataError: A file that is missing, empty or malformed, or a column that is missing.
    """
    check_split(split)
    source_split = source.source_split(split)
    if source.files is not None:
        _check_available(source_split, split, list(source.files), "files")
        files = source.files[source_split]
        rows = read_files([files] if isinstance(files, str) else files)
    else:
        rows = _read_path(source, str(source.path), source_split, split)
    if not rows:
        raise DataError(f"Expected at least one row in split {source_split!r} of {source.path}, but it is empty.")
    return [_renamed(row, source.columns) for row in rows]


def has_split(source: DataSource, split: str) -> bool:
    """Return whether the source has rows of the task's ``split``."""
    available = source.files if source.files is not None else _splits_of(source)
    return source.source_split(split) in available


def in_share(source: DataSource, split: str, row_id: str) -> bool:
    """Return whether a row belongs to the task's ``split``, because its hash falls into the split's share.

    Examples:
        >>> shares = {"train": 0.9, "validation": 0.1}
        >>> source = DataSource(path="data", splits={"validation": "train"}, shares=shares)
        >>> [in_share(source, split, "17") for split in ("train", "validation", "test")]
        [True, False, True]
    """
    digest = hashlib.sha256(f"{source.seed}:{row_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    start, end = source.interval(split)
    return start <= position < end or (end >= 1 - 1e-9 and position >= start)


def select_examples(source: DataSource, split: str, examples: Iterable[tuple[Row, Example]]) -> list[Example]:
    """Check that ids are unique, then take the share of the rows that belongs to ``split``.

    Args:
        source: Says where the rows came from.
        split: The task's split.
        examples: Every row of the source's split, with the example made of it.

    Raises:
        DataError: Two rows have the same id, or no row is left.
    """
    first: dict[str, Row] = {}
    selected = []
    for row, example in examples:
        if example.id in first:
            raise row.error(
                f"Expected unique ids, but {example.id!r} is also the id of {first[example.id].where}.",
                "Correct the rows, or name a column of unique ids, as in `columns: {id: column}`.",
            )
        first[example.id] = row
        if in_share(source, split, example.id):
            selected.append(example)
    if not selected:
        raise DataError(
            f"Expected at least one row for split {split!r}, but none of the {len(first)} rows is left. "
            "Widen the filters of the task, or its share in `shares`."
        )
    return selected


def _read_path(source: DataSource, path: str, source_split: str, split: str) -> list[Row]:
    if Path(path).suffix.lower() in SUFFIXES:
        _check_available(source_split, split, ["train"], "path")
        return read_files([path])
    data = load_dataset_splits(path, source.name, source.revision)
    _check_available(source_split, split, list(data), "path")
    where = f"{path}[{source_split}]"
    return [Row(row, f"{where}, row {number + 1}", number) for number, row in enumerate(data[source_split])]


def _splits_of(source: DataSource) -> Collection[str]:
    path = str(source.path)
    return (
        ["train"]
        if Path(path).suffix.lower() in SUFFIXES
        else list(load_dataset_splits(path, source.name, source.revision))
    )


def _check_available(source_split: str, split: str, available: Sequence[str], key: str) -> None:
    if source_split not in available:
        raise ConfigError(
            f"Expected split {source_split!r} in the source's `{key}`, for the task's split {split!r}, but "
            f"it has {', '.join(available)}. Name one of them, as in `splits: {{{split}: {available[0]}}}`, "
            "and give disjoint `shares` where two splits of the task read from the same one."
        )


def _renamed(row: Row, columns: Mapping[str, str | list[str]]) -> Row:
    values = {name: None if _is_missing(value) else value for name, value in row.values.items()}
    row = replace(row, values=values)
    values = dict(values)
    for name, column in columns.items():
        if isinstance(column, str):
            values[name] = _value_at(row, column, name)
        else:
            values[name] = [_value_at(row, each, name) for each in column]
    return Row(values, row.where, row.number, row.file)


def _is_missing(value: object) -> bool:
    """Return whether a value is what tables of numbers have in the place of a missing one: not a number."""
    return isinstance(value, float) and math.isnan(value)


def _value_at(row: Row, column: str, name: str) -> object:
    """Return the value of a column, or of a field within a column of objects.

    Raises:
        DataError: The row has no such column or field.
    """
    if column in row.values:
        return row.values[column]
    value: object = row.values
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise row.error(f"Expected a column {column!r} (`columns` names it for {name!r}).", "Correct `columns`.")
        value = value[part]
    return value
