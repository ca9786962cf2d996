import pytest
from hypothesis import given
from hypothesis import strategies as st

from caopd.reading.answers import stated_answer
from caopd.types import AnswerOutcome

PARSED, OTHER = AnswerOutcome.PARSED, AnswerOutcome.OTHER_FORM
MISSING, MALFORMED = AnswerOutcome.MISSING, AnswerOutcome.MALFORMED


@pytest.mark.parametrize(
    ("text", "answer", "outcome", "is_marked"),
    [
        ("Because.\n<answer>\nParis\n</answer>", "Paris", PARSED, True),
        ("<answer>Rome</answer> or <answer>Paris</answer> #### 3", "Paris", PARSED, True),
        (r"\boxed{3} <answer>4</answer>", "4", PARSED, True),
        ("<answer>Paris</answer> <answer>Rome", None, MALFORMED, True),
        ("<answer> </answer>", None, MALFORMED, True),
        ("<think><answer>Rome</answer></think>Paris", "Paris", PARSED, False),
        (r"so $\boxed{3}$ or $\boxed{\frac{\sqrt{2}}{3}}$.", r"\frac{\sqrt{2}}{3}", OTHER, True),
        (r"\boxed {a\}b}", r"a\}b", OTHER, True),
        (r"\boxed{3", None, MALFORMED, True),
        (r"\boxed{}", None, MALFORMED, True),
        ("6 * 3 = 18\n#### 18", "18", OTHER, True),
        ("##### 18\nis a heading", None, MISSING, False),
        ("I think.\nThe answer is Paris.\nYes.", "Paris.", OTHER, True),
        ("**Final answer:** Paris", "Paris", OTHER, True),
        ("So, the answer is: Paris", "Paris", OTHER, True),
        ("Answer: Rome\nAnswer: Paris", "Paris", OTHER, True),
        ("My answer is Paris", "My answer is Paris", PARSED, False),
        ("Paris", "Paris", PARSED, False),
        ("It is\nParis", None, MISSING, False),
        ("  ", None, MISSING, False),
    ],
)
def test_where_a_text_states_its_answer(text, answer, outcome, is_marked):
    assert stated_answer(text) == (answer, outcome, is_marked)


@given(st.text(alphabet="ab<>/answer\\boxed{}# \n:", max_size=80))
def test_no_text_raises_and_an_answer_is_never_blank(text):
    answer, outcome, _ = stated_answer(text)
    assert (answer is None) == (outcome in (MISSING, MALFORMED))
    assert answer is None or answer.strip() == answer != ""


@pytest.mark.parametrize("text", [r"\boxed{" * 30_000, "#### " * 50_000, "\n####\n" * 30_000, "answer " * 40_000])
def test_long_texts_are_read_in_passing(text):
    stated_answer(text)
