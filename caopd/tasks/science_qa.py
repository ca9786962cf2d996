"""Multiple-choice science questions: SciKnowEval (arXiv 2406.09098)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from caopd.errors import DataError
from caopd.tasks.base import SPLITS, Task
from caopd.tasks.loading import DataSource, load_rows, select_examples
from caopd.tasks.rows import Row, given_demonstration, made_of, row_id
from caopd.types import Example
from caopd.verifiers import MultipleChoice, Verifier

CLOSING = "Please reason step by step."
"""Last line of every question."""
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}
_OPTION_LINE = re.compile(r"^([A-Z]):[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class ScienceQA(Task):
    """Questions with lettered options, answered in ``<answer>`` tags.

    Two forms of rows are read, each recognised by its columns:

    - prepared: ``prompt`` (question, options, closing line), ``answer`` (a letter), and where given
      ``system``, ``idx`` and ``demonstration``. The category is the column ``domain``, or else the first part of
      the file's name (``chemistry.train.jsonl``).
    - the hub's (``hicai-zju/SciKnowEval``): ``question``, ``choices`` = {``text``, ``label``}, ``answerKey``,
      ``type``, ``domain``, ``details.level``. Prompt and system message are rendered in the prepared form.
      The hub has the split ``test`` only: give ``shares``.

    A row without a demonstration gets one that restates the correct option.

    Args:
        source: Where the rows are.
        subjects: Categories to keep, in any case, for example ``[chemistry]``; None keeps all.
        levels: Values of ``details.level`` to keep, for example ``[L3]``; None keeps all.
        types: Values of ``type`` to keep; None keeps all. The hub also has rows without options, which are
            an error here: ``[mcq-4-choices]`` leaves them out.

    Examples:
        >>> hub = DataSource(
        ...     path="hicai-zju/SciKnowEval",
        ...     splits={"train": "test", "validation": "test"},
        ...     shares={"train": 0.8, "validation": 0.1, "test": 0.1},
        ... )
        >>> task = ScienceQA(hub, subjects=["chemistry"], levels=["L3"], types=["mcq-4-choices"])
    """

    source: DataSource
    subjects: list[str] | None = None
    levels: list[str] | None = None
    types: list[str] | None = None
    verifier: Verifier = field(default=MultipleChoice(), init=False)

    def examples(self, split: str) -> Sequence[Example]:
        """Return the questions of ``train``, ``validation`` or ``test``, in the order of the data.

        Raises:
            ConfigError: The split has another name, or the source does not have it.
            DataError: A row lacks something, an id repeats, or the filters leave nothing.
        """
        rows = load_rows(self.source, split)
        rows = _keep(rows, "subjects", self.subjects, _category)
        rows = _keep(rows, "levels", self.levels, _level)
        rows = _keep(rows, "types", self.types, lambda row: row.text("type"))
        return select_examples(self.source, split, made_of(rows, lambda row: (row, _example(row))))


def _keep(rows: list[Row], name: str, wanted: list[str] | None, value_of: Callable[[Row], str]) -> list[Row]:
    if wanted is None:
        return rows
    accepted = {value.lower() for value in wanted}
    kept = [row for row in rows if value_of(row).lower() in accepted]
    if not kept:
        present = sorted({value_of(row) for row in rows})
        raise DataError(
            f"Expected rows with `{name}` in {wanted}, but the {len(rows)} rows have only "
            f"{', '.join(present[:20])}. Correct `{name}`, or set it to null to keep all rows."
        )
    return kept


def _category(row: Row) -> str:
    domain = row.optional_text("domain")
    if domain is not None:
        return domain.lower()
    stem = row.file.partition(".")[0].lower()
    return "" if stem in SPLITS else stem


def _level(row: Row) -> str:
    details = row.values.get("details")
    level = details.get("level") if isinstance(details, Mapping) else row.values.get("level")
    if not isinstance(level, str):
        raise row.error("Expected a text in `details.level`, by which `levels` filters.", "Set `levels` to null.")
    return level


def _example(row: Row) -> Example:
    system = row.optional_text("system")
    if "choices" in row.values:
        question, options, answer = _hub_fields(row)
        system = system or system_message(list(options))
    else:
        question, answer = row.text("prompt"), row.text("answer").strip().upper()
        options = _options_in(question)
    if len(answer) != 1 or not "A" <= answer <= "Z":
        raise row.error(f"Expected the answer to be a letter from A to Z, but got {answer[:80]!r}.")
    category = _category(row)
    return Example(
        id=row_id(row, category),
        question=question,
        target=answer,
        system=system,
        demonstration=given_demonstration(row) or _demonstration(answer, options.get(answer)),
        category=category,
    )


def _hub_fields(row: Row) -> tuple[str, dict[str, str], str]:
    """Question with its options, the options, the answer."""
    choices = row.values["choices"]
    texts, labels = (choices.get("text"), choices.get("label")) if isinstance(choices, Mapping) else (None, None)
    if not isinstance(texts, list) or not isinstance(labels, list) or not texts or len(texts) != len(labels):
        raise row.error(
            "Expected `choices` to hold two lists of equal length, `text` and `label`.",
            "Correct the row, or keep rows with options only, as with `types: [mcq-4-choices]`.",
        )
    options = dict(zip(map(str, labels), map(str, texts), strict=True))
    answer = row.text("answerKey").strip().upper()
    if answer not in options:
        raise row.error(f"Expected `answerKey` to be one of {', '.join(options)}, but got {answer[:80]!r}.")
    lines = [f"{label}: {text}" for label, text in options.items()]
    return "\n".join([row.text("question"), "", *lines, CLOSING]), options, answer


def _options_in(question: str) -> dict[str, str]:
    """Return the last run of lines ``A: ...``, ``B: ...`` of a prepared prompt as letter -> text; it may be empty."""
    options: dict[str, str] = {}
    for letter, text in _OPTION_LINE.findall(question):
        if letter == "A":
            options = {}
        if ord(letter) == ord("A") + len(options):
            options[letter] = text.strip()
    return options


def _demonstration(answer: str, option: str | None) -> str:
    restated = f"{answer}: {option}" if option else f"{answer}."
    return f"<reasoning>\nThe correct option is {restated}\n</reasoning>\n<answer>\n{answer}\n</answer>"


def system_message(letters: Sequence[str]) -> str:
    """Return the system message of the prepared data, for any number of options.

    Args:
        letters: The options' letters.
    """
    number = _NUMBER_WORDS.get(len(letters), str(len(letters)))
    listed = f"{', '.join(letters[:-1])}, or {letters[-1]}" if len(letters) > 2 else " or ".join(letters)
    return (
        f"\nGiven a question and {number} options, please select the right answer. "
        "Respond in the following format:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n\n"
        f"For the answer, only output the letter corresponding to the correct option ({listed}), and nothing "
        'else. Do not restate the answer text. For example, if the answer is "A", just output:\n'
        "<answer>\nA\n</answer>\n"
    )
