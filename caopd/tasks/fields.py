"""Reads the fields of a question from a row, in the forms in which data sets have them."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caopd.reading.answers import stated_answer
from caopd.tasks.rows import Row, given_demonstration, shortened, without_confidence

LETTERS = string.ascii_uppercase
"""Letters of options."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A question as a row has it, before it is worded as a prompt.

    Attributes:
        question: What is asked.
        answers: The accepted answers, the first one to be shown; of a question with options, one letter.
        options: Letter -> text, in the order of the letters; empty for a question without.
        context: What is to be read before the question; empty for none.
        demonstration: A response of the data; None where there is none.
        system: System message; None for none.
    """

    question: str
    answers: tuple[str, ...]
    options: Mapping[str, str]
    context: str
    demonstration: str | None
    system: str | None


def read_fields(row: Row, answer_after: str, shuffled_by: str | None) -> Fields:
    """Read a row.

    Args:
        row: The row, its columns named as the task's fields.
        answer_after: What stands before the answer in the column ``answer``, of which the rest is a demonstration;
            empty where the column is the answer.
        shuffled_by: Seed by which the options are put into a random order; None leaves them as they are.

    Raises:
        DataError: A field is missing or has a form that is not known.
    """
    chat = _chat(row) if "messages" in row.values else {}
    demonstration = given_demonstration(row)
    if "answer" not in row.values and "answer" not in chat:
        raise row.error("Expected a column 'answer', or `messages` with one of the assistant, but there is none.")
    written = row.values["answer"] if "answer" in row.values else chat["answer"]
    if answer_after:
        text = written if isinstance(written, str) else ""
        before, mark, behind = text.rpartition(answer_after)
        if not mark or not behind.strip() or not before.strip():
            raise row.error(
                f"Expected {answer_after!r} before the answer in column 'answer', but got {shortened(written)}."
            )
        demonstration, written = demonstration or before.strip(), behind.strip()
    has_options = row.values.get("choices") not in (None, "")
    options, right = _options(row, written, shuffled_by) if has_options else ({}, None)
    return Fields(
        question=chat["question"] if chat and "question" not in row.values else row.text("question"),
        answers=(right,) if right is not None else _answers(row, written),
        options=options,
        context=_context(row, row.values.get("context")),
        demonstration=demonstration or chat.get("demonstration"),
        system=row.optional_text("system") or chat.get("system"),
    )


def _answers(row: Row, written: object) -> tuple[str, ...]:
    """Return the answer, and after it those of the column ``aliases`` that differ from it."""
    aliases = _parsed(row.values.get("aliases"))
    if aliases is not None and not (isinstance(aliases, list) and all(map(_as_text, aliases))):
        raise row.error(f"Expected a list of texts or numbers in column 'aliases', but got {shortened(aliases)}.")
    texts = [_as_text(part) for part in (written if isinstance(written, list) else [written])]
    if not texts or not all(texts):
        raise row.error(
            f"Expected a text, a number or a list of them in column 'answer', but got {shortened(written)}."
        )
    return tuple(dict.fromkeys([*texts, *map(_as_text, aliases or [])]))


def _as_text(value: object) -> str:
    """Return a text or a number as text; empty for anything else."""
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _parsed(value: object) -> object:
    """Return a list or an object that stands as JSON in a text, as in a table of comma-separated values; else itself.

    An empty text is None.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip().startswith(("[", "{")) else value if value.strip() else None
    except (ValueError, RecursionError):
        return value


def _options(row: Row, written: object, shuffled_by: str | None) -> tuple[dict[str, str], str]:
    """Return the options by letter, and the letter of the right one.

    The answer is the label of an option, its number from 0, or its text; where options have no labels of their own, a
    text counts before a letter, and where their labels are numbers, a number is a label.
    """
    labels, texts, are_given = _labelled(row)
    are_numbers = are_given and any(label.removeprefix("-").isdigit() for label in labels)
    if isinstance(written, int) and not isinstance(written, bool) and not are_numbers:
        right = written if 0 <= written < len(texts) else None
    else:
        named = str(written).strip()
        forms = (labels, texts) if are_given else (texts, labels)
        right = next((known.index(named) for known in forms if known.count(named) == 1), None)
    if right is None:
        raise row.error(
            f"Expected the answer to be the label, the number from 0 or the text of one of the {len(texts)} choices, "
            f"but got {shortened(written)}."
        )
    order = list(range(len(texts)))
    if shuffled_by is not None:
        random.Random(shuffled_by).shuffle(order)
    return {LETTERS[place]: texts[old] for place, old in enumerate(order)}, LETTERS[order.index(right)]


def _labelled(row: Row) -> tuple[list[str], list[str], bool]:
    """Return labels and texts of the options, and whether the labels are the row's own."""
    choices = _parsed(row.values["choices"])
    if isinstance(choices, Mapping) and isinstance(choices.get("text"), list):
        labels, texts = choices.get("label") or [], choices["text"]
    elif isinstance(choices, Mapping):
        labels, texts = list(choices), list(choices.values())
    else:
        texts = choices if isinstance(choices, list) else []
        labels = list(LETTERS[: len(texts)])
    is_known = (
        isinstance(labels, list)
        and len(labels) == len(texts)
        and all(isinstance(text, str) and text.strip() for text in texts)
    )
    if not is_known or not 2 <= len(texts) <= len(LETTERS):
        raise row.error(
            "Expected the choices to be a list of 2 to 26 texts, two lists `text` and `label`, or an object of label "
            f"and text, none of them empty, but got {shortened(choices)}."
        )
    return [str(label).strip() for label in labels], [text.strip() for text in texts], isinstance(choices, Mapping)


def _context(row: Row, value: object) -> str:
    """Return a context as one text: of several passages, each is set off by an empty line, below its title if any."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        columns = list(value.values())
        if all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1:
            return "\n\n".join("\n".join(_passage(row, part) for part in parts) for parts in zip(*columns, strict=True))
    elif isinstance(value, list):
        return "\n\n".join(_passage(row, part) for part in value)
    return _passage(row, value)


def _passage(row: Row, value: object) -> str:
    parts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]
    if parts != (value if isinstance(value, list) else [value]):
        raise row.error(
            "Expected a context to be a text, a list of passages (texts, or lists of sentences), or an object of such "
            f"lists of equal length, but got {shortened(row.values.get('context'))}."
        )
    return "".join(parts).strip()


def _chat(row: Row) -> dict[str, str]:
    """Return the fields of a chat: one message of the user, before it a system message and after it a response."""
    messages = row.values["messages"]
    roles, texts = [], []
    for message in messages if isinstance(messages, Sequence) and not isinstance(messages, str) else ():
        is_message = isinstance(message, Mapping) and isinstance(message.get("content"), str)
        roles.append(message["role"] if is_message and isinstance(message.get("role"), str) else "?")
        texts.append(message["content"] if is_message else "")
    known = dict(zip(roles, texts, strict=True))
    if roles not in (["user"], ["system", "user"], ["user", "assistant"], ["system", "user", "assistant"]):
        found = f"the roles {', '.join(roles)}" if roles else shortened(messages)
        raise row.error(
            "Expected `messages` to be a list of {role, content}: at most one system message, one of the user, and at "
            f"most one of the assistant, each a text, but got {found}."
        )
    if not known["user"].strip():
        raise row.error("Expected a question in the user's message of `messages`, but it is empty.")
    fields = {"question": known["user"], **({"system": known["system"]} if "system" in known else {})}
    if "assistant" not in known:
        return fields
    response = without_confidence(known["assistant"])
    return {**fields, "demonstration": response, "answer": stated_answer(response).text or response}
