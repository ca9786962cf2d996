"""Questions with answers from rows of the user's own, or of a public data set."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from caopd.errors import ConfigError, DataError
from caopd.reading.tags import last_element
from caopd.tasks.base import Task, check_split
from caopd.tasks.fields import Fields, read_fields
from caopd.tasks.loading import DataSource, has_split, load_rows, select_examples
from caopd.tasks.rows import Row, made_of, row_id, shortened
from caopd.types import AnswerOutcome, Example
from caopd.verifiers import Judge, Verifier

INSTRUCTION = "Give your final answer between <answer> and </answer>."
"""Last line of every question."""
FIELDS = (
    *("question", "answer", "aliases", "choices", "context", "demonstration", "messages"),
    *("category", "id", "idx", "system"),
)
"""What ``source.columns`` can name a column for."""
_WORDS = re.compile(r"\w+|[#%]|(?<![^\W\d_])[-\u2212*/](?=\s*[\d(])|[^\w\s\u2212*/-]")
"""Matches words, and signs one by one; a minus, ``*`` and ``/`` as signs before a number alone."""
_SIGNS = re.compile(r"\w+|[#%\u2212*/-]")
_MAX_LISTED = 5


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """Questions and answers, read by the names of columns and judged by a verifier that the config names.

    The fields of a row, of which ``source.columns`` says what they are called there:

    - ``question`` and ``answer``: texts. An answer may also be a number, or a list of all accepted ones.
    - ``aliases``: a list of further accepted answers.
    - ``choices``: a list of options, ``{text: [...], label: [...]}``, or an object of label and text. The answer is
      then the label of one, its number from 0, or its text; prompt and target name it by a letter.
    - ``context``: what is to be read first: a text, a list of passages, or ``{title: [...], sentences: [[...]]}``.
    - ``demonstration``: a response that shows the answer; without one, the answer alone is shown.
    - ``messages``: a chat in place of question, demonstration and, if there is no column for it, answer.
    - ``category``, ``id``, ``system``.

    Only question and answer, or messages, must be there. ``aliases`` and ``choices`` may be JSON in a text, as in a
    table of comma-separated values. A question that is in ``train`` and in another split, up to case, punctuation and
    white space, is an error.

    Args:
        source: Where the rows are.
        verifier: Judges the answers: ``ShortAnswer``, ``Numeric``, ``MultipleChoice``, ``Mathematics``, ``Judge``, or a
            class of your own.
        instruction: Last line of every question; empty for none. If it asks for ``<answer>`` tags, demonstrations that
            have none get them, with the answer, as a last line.
        answer_after: What stands before the answer in the column ``answer``, where the rest of it is a demonstration,
            as ``####`` does in GSM8K; empty where the column is the answer.
        shuffle_choices: Put options into a random order, which depends on the row's id alone: for data sets that name
            the right one first.
        exclude_leaked: Leave a training row out whose question is in another split too, rather than refuse the data; a
            warning says how many.

    Raises:
        ConfigError: ``source.columns`` names a column for something that is no field.

    Examples:
        >>> from caopd.verifiers import ShortAnswer
        >>> source = DataSource(path="questions.csv", columns={"question": "Q", "answer": "A"})
        >>> task = QuestionAnswering(source, verifier=ShortAnswer())
    """

    source: DataSource
    verifier: Verifier
    instruction: str = INSTRUCTION
    answer_after: str = ""
    shuffle_choices: bool = False
    exclude_leaked: bool = False

    def __post_init__(self) -> None:
        for name in self.source.columns:
            if name not in FIELDS:
                close = get_close_matches(name, FIELDS, n=1)
                guess = f" Did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"Expected the keys of `columns` to be fields of QuestionAnswering ({', '.join(FIELDS)}), but got "
                    f"{name!r}.{guess}"
                )

    def examples(self, split: str) -> Sequence[Example]:
        """Return the questions of ``train``, ``validation`` or ``test``, in the order of the data.

        Raises:
            ConfigError: The split has another name, or the source does not have it.
            DataError: A row lacks something, an id repeats, or a question of ``train`` is in another split too.
        """
        check_split(split)
        read = self._read(split)
        if split == "train":
            others = [other for other in ("validation", "test") if has_split(self.source, other)]
            read = self._without_leaked(read, {other: self._read(other) for other in others})
        return [question.example for question in read]

    def _read(self, split: str) -> list[_Question]:
        questions = made_of(load_rows(self.source, split), self._question)
        by_id = {question.example.id: question for question in questions}
        selected = select_examples(self.source, split, [(question.row, question.example) for question in questions])
        return [by_id[example.id] for example in selected]

    def _question(self, row: Row) -> _Question:
        given = row.values.get("category")
        category = "" if given is None else str(given)
        identity = row_id(row, category)
        fields = read_fields(row, self.answer_after, identity if self.shuffle_choices else None)
        target = self._target(row, fields)
        try:
            self.verifier.verify("", target)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error
        shown = self._demonstration(fields)
        self._check_shown(row, shown, target, is_given=fields.demonstration is not None)
        example = Example(
            id=identity,
            question="\n".join(filter(None, [_worded(fields), self.instruction])),
            target=target,
            system=fields.system,
            demonstration=shown,
            category=category,
        )
        return _Question(example, row, _key(fields))

    def _target(self, row: Row, fields: Fields) -> str:
        make = getattr(self.verifier, "target", None)
        if make is not None:
            return str(make(_worded(fields), fields.answers))
        if len(fields.answers) > 1:
            raise row.error(
                f"Expected one answer, which is what {type(self.verifier).__name__} compares with, but got "
                f"{len(fields.answers)}.",
                "Take `ShortAnswer` or `Judge` as verifier, which accept several.",
            )
        return fields.answers[0]

    def _demonstration(self, fields: Fields) -> str:
        given, answer = fields.demonstration, fields.answers[0]
        if "<answer>" not in self.instruction:
            return given or answer
        if given and last_element(given, "answer") is not None:
            return given
        shown = given or (f"{answer}: {fields.options[answer]}" if fields.options else None)
        return "\n".join(filter(None, [shown, f"<answer>{answer}</answer>"]))

    def _check_shown(self, row: Row, shown: str, target: str, is_given: bool) -> None:
        """Check that the verifier reads an answer in what shows it, and the right one in tags; a judge is not asked.

        Raises:
            DataError: It finds none, or another one.
        """
        if is_given and (last_element(shown, "answer") is None or isinstance(self.verifier, Judge)):
            return
        verdict, name = self.verifier.verify(shown, target), type(self.verifier).__name__
        if is_given and not verdict.correct:
            raise row.error(
                f"Expected the demonstration to state the answer {shortened(target)} in its <answer> tags, but there "
                f"{name} reads {shortened(verdict.answer)}."
            )
        if verdict.outcome is AnswerOutcome.MISSING:
            raise row.error(
                f"Expected {name} to read the answer in what shows it, {shortened(shown)}, but it finds none there, "
                "and would find none in completions like it.",
                "Let `instruction` ask for <answer> tags, or take another verifier.",
            )

    def _without_leaked(self, train: list[_Question], others: dict[str, list[_Question]]) -> list[_Question]:
        """Return the training questions that are in no other split.

        Raises:
            DataError: There are some that are, and they are not to be left out.
        """
        held_out = {question.key: (name, question) for name, read in others.items() for question in read}
        leaked = [question for question in train if question.key in held_out]
        if leaked and not self.exclude_leaked:
            raise DataError(_leakage(leaked, held_out, len(train)))
        kept = [question for question in train if question.key not in held_out]
        if not kept:
            raise DataError(_leakage(leaked, held_out, len(train)))
        if leaked:
            warnings.warn(
                f"{len(leaked):,} of {len(train):,} rows of train are left out: their question is in another split, "
                "too (`exclude_leaked`).",
                stacklevel=2,
            )
        return kept


@dataclass(frozen=True, slots=True)
class _Question:
    """An example, its row, and what is equal where two rows ask the same."""

    example: Example
    row: Row
    key: tuple[str, ...]


def _leakage(leaked: Sequence[_Question], held_out: dict[tuple[str, ...], tuple[str, _Question]], number: int) -> str:
    pairs = [(question, *held_out[question.key]) for question in leaked[:_MAX_LISTED]]
    listed = "\n".join(f"{mine.row.where} (train) and {other.row.where} ({name})" for mine, name, other in pairs)
    more = "\n..." if len(leaked) > _MAX_LISTED else ""
    return (
        f"Expected no question of train in another split, but {len(leaked)} of {number} are:\n{listed}{more}\n"
        "Correct `splits` and `shares` of the source, or leave these rows out of train with `exclude_leaked: true`."
    )


def _worded(fields: Fields) -> str:
    """Return context, question and options as one text."""
    options = "\n".join(f"{letter}: {text}" for letter, text in fields.options.items())
    return "\n\n".join(filter(None, [fields.context, fields.question.strip(), options]))


def _key(fields: Fields) -> tuple[str, ...]:
    """Return what two rows have in common that ask the same, in whatever order their options are."""
    return (_plain([fields.context, fields.question]), *sorted(_plain([text]) for text in fields.options.values()))


def _plain(texts: Iterable[str]) -> str:
    """Return texts without case, punctuation and white space; signs of mathematics stay."""
    folded = unicodedata.normalize("NFKC", " ".join(texts)).casefold()
    found = [each for each in _WORDS.findall(folded) if _SIGNS.fullmatch(each) or unicodedata.category(each) == "Sm"]
    return " ".join(found) or folded
