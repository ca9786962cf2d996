"""Lines to arrays: what is read, and what is refused with its line number."""

import json

import numpy as np
import pytest

from caopd.commands.score.judge import Judge
from caopd.commands.score.predictions import read_predictions
from caopd.errors import DataError


@pytest.fixture
def read(tmp_path):
    def from_lines(*lines, judge=None):
        path = tmp_path / "predictions.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return read_predictions(path, judge)

    return from_lines


def test_columns_of_lines_by_hand(read):
    found = read(
        {"confidence": 0.25, "correct": 0, "prompt_id": "a", "category": "x"},
        {"confidence": None, "correct": True, "prompt_id": "b", "category": None},
        {"confidence": 1, "correct": False, "prompt_id": "a", "category": "y", "response": "?", "answer": None},
        b"  ",
        {"confidence": 0.5, "correct": 1.0, "category": "", "response": "B", "answer": "B"},
        {"confidence": 0.5, "correct": 1, "prompt_id": None, "category": 3, "answer": "of the data set"},
    )
    np.testing.assert_array_equal(found.confidence, [0.25, np.nan, 1.0, 0.5, 0.5])
    assert found.correct.tolist() == [False, True, False, True, True]
    assert found.prompt.tolist() == [0, 1, 0, 2, 3]
    assert found.category.tolist() == [0, -1, 1, -1, 2]
    assert found.categories == ("x", "y", "3")
    assert found.answered.tolist() == [-1, -1, 0, 1, -1]


def test_a_number_and_a_text_are_two_prompts(read):
    lines = [{"confidence": 1, "correct": 1, "prompt_id": name} for name in (1, "1", 1)]
    assert read(*lines).prompt.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", r"expected JSON, but it cannot be read at column 2"),
        (b'{"confidence": 0.5, "correct": "\xff"}', "codec can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[0.5, 1]", r"expected a JSON object, but got \[0.5, 1\]"),
        ({"correct": 1}, "expected `confidence` and `correct`, but got only 'correct'"),
        ({"confidence": 0.5}, "expected `confidence` and `correct`, but got only 'confidence'"),
        ({"response": "B", "target": "B"}, "'response, target'; give `--task`"),
        ({"confidence": 85, "correct": 1}, "a number from 0 to 1 or null, but got 85"),
        ({"confidence": -0.01, "correct": 1}, "but got -0.01"),
        (b'{"confidence": NaN, "correct": 1}', "but got nan"),
        ({"confidence": "0.5", "correct": 1}, "but got '0.5'"),
        ({"confidence": True, "correct": 1}, "but got True"),
        ({"confidence": 0.5, "correct": 0.5}, "`correct` to be 0, 1, true, false, or null .*, but got 0.5"),
        ({"confidence": 0.5, "correct": "1"}, "but got '1'"),
        ({"confidence": 0.5, "correct": 1, "prompt_id": [1]}, r"`prompt_id` to be a text, an integer or null.*\[1\]"),
        ({"confidence": 0.5, "correct": 1, "prompt_id": True}, "`prompt_id`.*but got True"),
        ({"confidence": 0.5, "correct": 1, "category": {"a": 1}}, "`category` to be a text, an integer or null"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(read, line, reason):
    good = {"confidence": 0.5, "correct": 1}
    with pytest.raises(DataError, match=rf"1 cannot be scored, so nothing was scored[^$]*  line 3: [^\n]*{reason}"):
        read(good, b"", line, good)


def test_ten_bad_lines_are_shown_and_all_are_counted(read):
    with pytest.raises(DataError) as caught:
        read(*[{"confidence": 0.5, "correct": k % 2 * 2} for k in range(1, 31)])
    assert "15 cannot be scored" in str(caught.value)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:-1]] == [
        f"  line {number}" for number in range(1, 20, 2)
    ]


def test_a_file_without_lines_is_refused(read):
    with pytest.raises(
        DataError, match=r"at least one prediction with a verdict in .*predictions\.jsonl, but it holds no line"
    ):
        read(b"", b" ")


def test_a_judge_reads_and_verifies_responses_and_leaves_other_lines_as_they_stand(read):
    found = read(
        {"response": "<answer>B</answer>\nConfidence: 85%", "target": "B", "confidence": 0.1, "correct": 0},
        {"response": "<answer>B</answer>", "target": "C"},
        {"response": "no idea. Confidence: 0.2", "target": "C"},
        {"confidence": 0.1, "correct": 1},
        judge=Judge.named("science_qa", "inline"),
    )
    np.testing.assert_array_equal(found.confidence, [0.85, np.nan, 0.2, 0.1])
    assert found.correct.tolist() == [True, False, False, True]
    assert found.answered.tolist() == [1, 1, 0, -1]


def test_a_judge_does_not_know_a_number_that_the_length_limit_may_have_cut(read):
    rows = [
        {"response": f"6\nConfidence: {stated}", "target": "6", "stop_reason": stop}
        for stated in ("0.85", "0.8")
        for stop in ("eos", "length")
    ]
    found = read(*rows, judge=Judge.named("draw", "inline"))
    np.testing.assert_array_equal(found.confidence, [0.85, 0.85, 0.8, np.nan])
    assert found.correct.all()


def test_a_judge_takes_no_answer_from_a_thought(read):
    found = read(
        {"response": "<think>Perhaps <answer>B</answer>. Confidence: 0.9", "target": "B"},
        {"response": "<answer>B</answer> Confidence: 0.9</think>\n<answer>C</answer>", "target": "C"},
        judge=Judge.named("science_qa", "inline"),
    )
    assert np.isnan(found.confidence).all()
    assert found.correct.tolist() == [False, True]
    assert found.answered.tolist() == [0, 1]


def test_thoughts_that_a_line_names_are_left_out(read):
    """Their marks may be those of one model's template, or stand in its prompt."""
    response = "<answer>B</answer> or <answer>C</answer> Confidence: 0.9"
    for thoughts, confidence, answered, correct in (
        (None, 0.9, 1, False),
        ([], 0.9, 1, False),
        ([[21, 41]], 0.9, 1, True),
        ([[0, len(response)]], np.nan, 0, False),
    ):
        judge = Judge.named("science_qa", "inline")
        found = read({"response": response, "target": "B", "thoughts": thoughts}, judge=judge)
        columns = [*found.confidence, *found.answered, *found.correct]
        np.testing.assert_array_equal(columns, [confidence, answered, correct])


def test_forms_are_read_from_a_line_that_says_them(read):
    good = {"confidence": 0.5, "correct": 1}
    found = read(
        good,
        {**good, "confidence_outcome": "decimal", "answer_outcome": "other_form"},
        {**good, "confidence_outcome": "percent", "answer_outcome": "malformed"},
        {**good, "confidence": None, "confidence_outcome": "missing", "answer_outcome": "parsed"},
        {"response": "<answer>B</answer>\nConfidence: 85%", "target": "B"},
        {"response": "\\boxed{B}\nConfidence: 0.85", "target": "B"},
        judge=Judge.named("science_qa", "inline"),
    )
    assert found.form.tolist() == [-1, 1, 2, 0, 2, 1]
    assert found.answered.tolist() == [-1, 2, 0, 1, 1, 2]


@pytest.mark.parametrize("thoughts", [7, "0", [3], [[0]], [[0, 99]], [[2, 1]], [[0, 1], [0, 1]], [["a", 1]], {"a": 1}])
def test_thoughts_that_are_no_ranges_are_refused(read, thoughts):
    line = {"response": "<answer>B</answer>", "target": "B", "thoughts": thoughts}
    with pytest.raises(DataError, match=r"`thoughts` to be ranges of characters of `response`"):
        read(line, judge=Judge.named("science_qa", "inline"))


@pytest.mark.parametrize("name", ["answer_outcome", "confidence_outcome"])
def test_an_outcome_that_there_is_not_is_refused(read, name):
    with pytest.raises(DataError, match=f"`{name}` to be one of .*missing.*but got 'good'"):
        read({"confidence": 0.5, "correct": 1, name: "good"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"response": "B"}, "`target` to be a text, but got None"),
        ({"response": None, "target": "B"}, "`response` to be a text, but got None"),
        ({"response": "B", "target": "seven"}, "one letter of .*, but got 'seven'"),
    ],
)
def test_a_line_that_cannot_be_judged_is_refused(read, line, reason):
    with pytest.raises(DataError, match=rf"  line 1: [^\n]*{reason}"):
        read(line, judge=Judge.named("science_qa", "inline"))


def test_lines_without_a_verdict_are_counted_and_in_no_column(read):
    good = {"confidence": 0.5, "correct": 1, "prompt_id": "a"}
    found = read(good, {"confidence": 0.9, "correct": None, "prompt_id": "b"}, {"confidence": 0.9, "correct": None})
    assert found.correct.tolist() == [True]
    assert found.unjudged == ("b", None)
    assert list(found.prompt_ids) == ["a"]
    with pytest.raises(DataError, match=r"at least one prediction with a verdict in .*none of its 1 lines"):
        read({"confidence": 0.9, "correct": None})
