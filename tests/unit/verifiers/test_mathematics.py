import subprocess
import sys

import pytest

from caopd.errors import DataError
from caopd.types import AnswerOutcome
from caopd.verifiers import Mathematics
from tests.needs import needs_math


@needs_math
@pytest.mark.parametrize(
    ("text", "target", "correct"),
    [
        (r"So it is $\boxed{0.5}$.", r"\frac{1}{2}", True),
        ("<answer>3/4</answer>", "0.75", True),
        ("<answer>$x^2+2x+1$</answer>", "(x+1)^2", True),
        ("<answer>$x^2+2x+2$</answer>", "(x+1)^2", False),
        (r"<answer>\frac{\sqrt{2}}{3}</answer>", r"\frac{\sqrt2}{3}", True),
        (r"<answer>(2, 1)</answer>", r"\left( 1, 2 \right)", False),
        (r"<answer>90^\circ</answer>", "90", True),
        ("It is\n$x = 5$, so", "5", True),
        (r"<answer>\text{Evelyn}</answer>", r"\text{Evelyn}", True),
        ("7", "7", True),
        ("the result is 7", "8", False),
        # a sentence, and what stands around an answer
        ("The answer is $5$.", "5", True),
        ("Answer: 5.", "5", True),
        ("**Answer: 5**", "5", True),
        ("<answer>5.</answer>", "5", True),
        ("<answer>$5$.</answer>", "5", True),
        ("<answer>**5**</answer>", "5", True),
        ("<answer>5;</answer>", "5", True),
        ("<answer>The answer is 5</answer>", "5", True),
        ("<answer>The answer is $5$.</answer>", "5", True),
        ("<answer>It is five, or $5$ apples.</answer>", "5", True),
        (r"So \boxed{5.}", "5", True),
        (r"<answer>\(\frac{1}{2}\).</answer>", "0.5", True),
        ("<answer>(3, 4).</answer>", "(3,4)", True),
        (r"The answer is $\text{Evelyn}$.", r"\text{Evelyn}", True),
        (r"<answer>\text{two words}</answer>", r"\text{two words}", True),
        # a part of an answer is not the answer
        ("<answer>(3, 4).</answer>", "4", False),
        ("<answer>3, 5, 7.</answer>", "7", False),
        ("The answer is $6 - 5i$.", "5", False),
        ("<answer>x > 5.</answer>", "5", False),
        ("The answer is x > 5.", "5", False),
        ("x > 5.", "5", False),
        ("<answer>$x^2 + 3$.</answer>", "3", False),
    ],
)
def test_expressions_are_compared_as_such(text, target, correct):
    verdict = Mathematics().verify(text, target)
    assert verdict.correct is correct
    assert verdict.answer is not None


@needs_math
def test_no_answer_and_one_that_is_cut():
    assert Mathematics().verify("", "7").outcome is AnswerOutcome.MISSING
    cut = Mathematics().verify("<answer>7", "7")
    assert (cut.correct, cut.outcome) == (False, AnswerOutcome.MALFORMED)


@needs_math
def test_a_target_that_is_no_expression_is_an_error():
    with pytest.raises(DataError, match="target of a question for an expression to be one"):
        Mathematics().verify("7", " ")


def test_without_the_library_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['math_verify'] = None; from caopd.verifiers import Mathematics; "
        "Mathematics().verify('7', '7')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0
    assert "ConfigError: The verifier Mathematics needs the package math-verify" in run.stderr
    assert "pip install 'caopd[math]'" in run.stderr
