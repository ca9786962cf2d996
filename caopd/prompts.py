"""Renders prompts: fields of an example in, chat messages out. No other module knows the templates.

A prompt is rendered once from its fields and never edited afterwards, so nothing can vanish from it.
The sentences of the teacher's contexts are those of the paper (arXiv 2604.16830, appendix C.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from caopd.types import Example, Message, TeacherContext


class ConfidencePhrases(Protocol):
    """The part of a confidence format that prompts need."""

    @property
    def instruction(self) -> str:
        """The sentence that asks for a confidence."""
        ...

    @property
    def field_name(self) -> str:
        """How the note in the teacher's prompt names the field, for example ``Confidence:``."""
        ...

    def render(self, confidence: float) -> str:
        """Return the confidence segment as text."""
        ...


@dataclass(frozen=True, slots=True)
class ContextTemplate:
    """The two sentences around a privileged response."""

    introduction: str
    closing: str


CONTEXT_TEMPLATES = {
    "demonstration": ContextTemplate(
        introduction="This is an example for a response to the question:",
        closing="Now answer with a response of your own, including the thinking process.",
    ),
    "solution": ContextTemplate(
        introduction="Correct solution:",
        closing="Correctly solve the original question.",
    ),
}
"""Kind of a :class:`caopd.types.TeacherContext` -> its template: appendix C.3.1 (SDFT) and C.3.2 (SDPO)."""

FEEDBACK_INTRODUCTION = "Feedback on an unsuccessful attempt at the question:"
NOTE_OPENING = "The empirical confidence for this question is "
NOTE_CLOSING = ". Output exactly this value in the `{field}` field."


def student_messages(example: Example, confidence_format: ConfidencePhrases) -> list[Message]:
    """Render the student's prompt: system message, question, and the request for a confidence; nothing privileged.

    Args:
        example: The row of the task.
        confidence_format: Gives the instruction that asks for a confidence.
    """
    return _messages(example, _question(example, confidence_format))


def teacher_messages(example: Example, context: TeacherContext, confidence_format: ConfidencePhrases) -> list[Message]:
    """Render the teacher's prompt: the student's, then privileged response, feedback, a note, a closing sentence.

    Args:
        example: The row of the task.
        context: The privileged response and the confidence that it states.
        confidence_format: Renders that confidence as it renders the student's.
    """
    template = CONTEXT_TEMPLATES[context.kind]
    parts = [_question(example, confidence_format)]
    if context.response is not None:
        stated = [] if context.confidence is None else [confidence_format.render(context.confidence)]
        parts.append("\n".join([template.introduction, context.response, *stated]))
    if context.feedback is not None:
        parts.append(f"{FEEDBACK_INTRODUCTION}\n{context.feedback}")
    closing = template.closing
    if context.empirical and context.confidence is not None:
        closing = _note(context.confidence, confidence_format) + "\n" + closing
    return _messages(example, "\n\n".join([*parts, closing]))


def _question(example: Example, confidence_format: ConfidencePhrases) -> str:
    return f"{example.question}\n\n{confidence_format.instruction}"


def _note(confidence: float, confidence_format: ConfidencePhrases) -> str:
    return NOTE_OPENING + f"{confidence:.2f}" + NOTE_CLOSING.format(field=confidence_format.field_name)


def _messages(example: Example, user: str) -> list[Message]:
    system: list[Message] = []
    if example.system is not None:
        system.append({"role": "system", "content": example.system})
    return [*system, {"role": "user", "content": user}]
