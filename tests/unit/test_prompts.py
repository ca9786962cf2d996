import pytest

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.prompts import CONTEXT_TEMPLATES, student_messages, teacher_messages
from caopd.types import Example, TeacherContext

EXAMPLE = Example(
    id="row-77",
    question="QUESTION text?",
    target="TARGET",
    system="SYSTEM text",
    demonstration="DEMONSTRATION text",
    category="CATEGORY",
)
FORMATS = [InlineConfidence(), TagConfidence()]
KINDS = list(CONTEXT_TEMPLATES)
every_form = pytest.mark.parametrize("form", FORMATS, ids=["inline", "tag"])
every_kind = pytest.mark.parametrize("kind", KINDS)


def everything(messages):
    return "\n".join(message["content"] for message in messages)


@every_form
def test_the_students_prompt_is_the_question_and_how_to_state_a_confidence(form):
    assert student_messages(EXAMPLE, form) == [
        {"role": "system", "content": "SYSTEM text"},
        {"role": "user", "content": f"QUESTION text?\n\n{form.instruction}"},
    ]


@every_form
def test_the_students_prompt_holds_nothing_privileged(form):
    text = everything(student_messages(EXAMPLE, form))
    for privileged in ("DEMONSTRATION", "TARGET", "GROUP", "row-77", "empirical"):
        assert privileged not in text


def test_without_a_system_text_there_is_no_system_message():
    example = Example("1", "QUESTION", "TARGET", demonstration="DEMONSTRATION")
    context = TeacherContext("demonstration", "DEMONSTRATION", 1.0)
    form = InlineConfidence()
    for messages in (student_messages(example, form), teacher_messages(example, context, form)):
        assert [message["role"] for message in messages] == ["user"]


@every_form
@every_kind
@pytest.mark.parametrize("empirical", [True, False])
@pytest.mark.parametrize("system", ["SYSTEM text", "system {brace} Confidence: 0.5", None])
def test_the_teachers_prompt_holds_the_students_and_the_context(form, kind, empirical, system):
    example = Example("1", "QUESTION text?", "TARGET", system=system)
    context = TeacherContext(kind, "RESPONSE text", 0.125, empirical)
    student, teacher = student_messages(example, form), teacher_messages(example, context, form)
    assert teacher[:-1] == student[:-1]
    asked, told = student[-1]["content"], teacher[-1]["content"]
    assert told.startswith(asked)
    added = told.removeprefix(asked)
    assert f"RESPONSE text\n{form.render(0.125)}\n" in added
    assert added.endswith(CONTEXT_TEMPLATES[kind].closing)


@every_form
@every_kind
def test_only_an_empirical_confidence_comes_with_a_note(form, kind):
    context = TeacherContext(kind, "RESPONSE", 1.0)
    stated = everything(teacher_messages(EXAMPLE, context, form))
    empirical = everything(teacher_messages(EXAMPLE, context.with_empirical_confidence(0.375), form))
    assert "empirical" not in stated
    assert form.render(1.0) in stated
    assert form.render(1.0) not in empirical
    note = (
        "The empirical confidence for this question is 0.38. "
        f"Output exactly this value in the `{form.field_name}` field."
    )
    assert empirical.count(note) == 1
    assert empirical.endswith(f"{form.render(0.375)}\n\n{note}\n{CONTEXT_TEMPLATES[kind].closing}")


@every_kind
def test_a_context_without_a_confidence_states_none(kind):
    form = InlineConfidence()
    messages = teacher_messages(EXAMPLE, TeacherContext(kind, "RESPONSE", None), form)
    added = messages[-1]["content"].removeprefix(student_messages(EXAMPLE, form)[-1]["content"])
    assert "onfidence" not in added


@pytest.mark.parametrize("hundredths", range(0, 101, 5))
def test_note_and_response_state_the_same_value(hundredths):
    form = InlineConfidence()
    context = TeacherContext("solution", "RESPONSE", 0.9).with_empirical_confidence(hundredths / 100)
    told = teacher_messages(EXAMPLE, context, form)[-1]["content"]
    value = form.render(hundredths / 100).removeprefix("Confidence: ")
    assert told.count(value) == 2 + InlineConfidence().instruction.count(value)


def test_the_sentences_are_those_of_the_papers_appendix():
    """Appendix C.3.1 and C.3.2 of arXiv 2604.16830."""
    sentences = {kind: (t.introduction, t.closing) for kind, t in CONTEXT_TEMPLATES.items()}
    assert sentences == {
        "demonstration": (
            "This is an example for a response to the question:",
            "Now answer with a response of your own, including the thinking process.",
        ),
        "solution": ("Correct solution:", "Correctly solve the original question."),
    }
