"""A row of a data set, and the readers of files, saved data sets and the hub."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.errors import ConfigError, DataError
from caopd.tasks.hub import hub_answers
from caopd.texts import unique

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""Suffixes of the files that can be read."""
_CONFIDENCE_WORD = re.compile("confidence", re.IGNORECASE)
_MAX_ERRORS = 10
_LETTER = re.compile(r"[^\W\d_]")

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a data set, and where it came from.

    Attributes:
        values: Field -> value.
        where: File and line, or data set and row, for error messages.
        number: Position within the source's split, counted from 0.
        file: Name of the file, without its folder; empty for a hub data set.
    """

    values: Mapping[str, object]
    where: str
    number: int
    file: str = ""

    def text(self, name: str) -> str:
        """Return the text of a field.

        Raises:
            DataError: The field is missing, is no text, or is empty.
        """
        value = self.values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"Expected a non-empty text in column {name!r}, but got {shortened(value)}.")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return the text of a field, None where the row has none or an empty one.

        Raises:
            DataError: The field holds something else than text.
        """
        value = self.values.get(name)
        return None if value is None or value == "" else self.text(name)

    def error(self, problem: str, advice: str = "Correct the row, or map the column in `columns`.") -> DataError:
        """Return a ``DataError`` that says where, what is wrong, which columns there are, and what to do."""
        names = [str(name) if str(name) == str(name).strip() else repr(name) for name in self.values]
        return DataError(f"{self.where}: {problem} Columns: {', '.join(names)}. {advice}")


def given_demonstration(row: Row) -> str | None:
    """Return the row's own demonstration, if it has one, :func:`without_confidence`."""
    text = row.optional_text("demonstration")
    return None if text is None else without_confidence(text)


def without_confidence(text: str) -> str:
    """Return a response of the data without a confidence segment at its end.

    Contexts state a confidence themselves, so one in the data (as in published CaOPD data) is taken off, provided that
    the segment says nothing else. If it holds a remark, which may be the answer, the demonstration stays whole.
    """
    for confidence_format in (InlineConfidence(), TagConfidence()):
        span = confidence_format.parse(text).span
        if span is None or text[span[1] :].strip():
            continue
        if not _LETTER.search(_CONFIDENCE_WORD.sub("", text[slice(*span)])):
            text = text[: span[0]].rstrip()
    return text


def made_of(rows: Iterable[Row], make: Callable[[Row], _Made]) -> list[_Made]:
    """Return what is made of every row.

    Args:
        rows: The rows.
        make: Makes something of a row.

    Raises:
        DataError: Rows cannot be used; the message names all of them, up to a limit.
    """
    made, errors = [], []
    for row in rows:
        try:
            made.append(make(row))
        except DataError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        more = f"\nand {len(errors) - _MAX_ERRORS} more" if len(errors) > _MAX_ERRORS else ""
        listed = "\n".join(map(str, errors[:_MAX_ERRORS]))
        raise DataError(f"Expected rows that can be used, but {len(errors)} cannot:\n{listed}{more}")
    return made


def row_id(row: Row, category: str) -> str:
    """Return the row's id: its ``id``, ``idx`` or else number, prefixed with the category that it is unique within.

    Raises:
        DataError: The id is an empty text.
    """
    given = row.values.get("id", row.values.get("idx"))
    if isinstance(given, str) and not given.strip():
        raise row.error("Expected an id, but got an empty text.", "Give every row one, or map another column to `id`.")
    identity = str(row.number if given is None else given)
    return f"{category}-{identity}" if category else identity


def shortened(value: object) -> str:
    """Return the ``repr`` of a value, cut to fit an error message."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def read_files(paths: Sequence[str]) -> list[Row]:
    """Read data files, one after the other.

    Raises:
        ConfigError: A suffix that is not one of :data:`SUFFIXES`.
        DataError: A file that is missing, empty or malformed.
    """
    rows: list[Row] = []
    for name in paths:
        path = Path(name)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ConfigError(f"Expected a data file ending in {', '.join(SUFFIXES)}, but got {name}.")
        if not path.is_file():
            raise DataError(f"Expected a data file at {name}, but there is none. Correct `source` of the task.")
        read = _READERS.get(suffix, _read_json)(path)
        start = len(rows)
        rows += [Row(values, where, number, path.name) for number, (where, values) in enumerate(read, start)]
        if len(rows) == start:
            raise DataError(f"Expected at least one row in {name}, but it is empty.")
    return rows


def _read_json(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Read a file with the standard library, which keeps line numbers, and the types of every row as they are."""
    text = _text_of(path)
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        items = _parse_json(text, str(path))
        numbered = [(f"{path}, item {n}", item) for n, item in enumerate(items if isinstance(items, list) else [], 1)]
    else:
        lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        numbered = [(where, _parse_json(line, where)) for where, line in lines]
    for where, item in numbered:
        if not isinstance(item, dict):
            raise DataError(f"{where}: expected a JSON object, but got {shortened(item)}. Correct the row.")
        _check_characters(item, where)
        yield where, item


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, but got {error}. Convert the file.") from error


def _read_csv(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Read a table whose first line names the columns; every value is text, of any length."""
    text = _text_of(path)
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(lines, [])
        if len(set(names)) < len(names):
            raise DataError(f"{path}, line 1: expected a different name for every column, but got {', '.join(names)}.")
        for values in lines:
            where = f"{path}, line {lines.line_num}"
            if values and len(values) != len(names):
                raise DataError(
                    f"{where}: expected {len(names)} values, one for each column that the first line names, but got "
                    f"{len(values)}. Correct the row, or put values with a comma in quotation marks."
                )
            if values:
                yield where, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num}: expected comma-separated values, but got {error}.") from error


def _check_characters(item: Mapping[str, object], where: str) -> None:
    """Raise where a text holds half of a surrogate pair, which JSON can escape and no tokenizer takes."""
    try:
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        around = error.object[max(error.start - 30, 0) : error.end + 30]
        raise DataError(
            f"{where}: expected characters, but got half of a surrogate pair: {around!a}. Correct the row."
        ) from error


def _parse_json(text: str, where: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: expected a JSON object per line, or one list of them in a .json file, but got "
            f"{shortened(text[:80])} ({error}). Correct the file."
        ) from error


def _read_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    from datasets import Dataset
    from datasets.exceptions import DatasetsError

    try:
        data = Dataset.from_parquet(str(path), keep_in_memory=True)
    except (DatasetsError, OSError, ValueError) as error:
        raise DataError(f"{path}: expected a parquet file, but got {shortened(str(error))}.") from error
    return ((f"{path}, row {number}", row) for number, row in enumerate(data, 1))


_READERS = {".parquet": _read_parquet, ".csv": _read_csv}


def load_dataset_splits(
    path: str, name: str | None, revision: str | None
) -> Mapping[str, Iterable[Mapping[str, object]]]:
    """Load a saved data set, a directory of data files or a hub data set, as split -> rows.

    Raises:
        DataError: There is none, or it cannot be loaded.
    """
    from datasets import Dataset, load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    if not Path(path).exists() and not Path(path).is_absolute() and not hub_answers():
        raise DataError(
            f"Expected {path} to be a hub data set, a directory or a file, but nothing is there, and the hub cannot be "
            "reached. Check `source` and the network; with HF_HUB_OFFLINE=1 a data set is read that was downloaded "
            "before."
        )
    saved = any((Path(path) / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        data = load_from_disk(path) if saved else load_dataset(path, name, revision=revision)
    except (DatasetsError, OSError, ValueError) as error:
        raise DataError(
            f"Expected {path} to be a hub data set, a directory of `save_to_disk`, a directory of data "
            f"files, or a file, but loading failed: {shortened(str(error))}. Check `source`."
        ) from error
    result: Mapping[str, Iterable[Mapping[str, object]]] = {"train": data} if isinstance(data, Dataset) else data
    return result
