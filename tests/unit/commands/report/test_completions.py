"""Which completions a report can be browsed for, and what it says of those that it leaves out."""

import json

import pytest

from caopd.commands.report.browser import browser, completions_table
from caopd.commands.report.completions import MAX_CHARACTERS, completions_of
from caopd.commands.report.sets import RunSet
from caopd.errors import DataError
from caopd.rounds.buffer import save_groups
from caopd.types import Example

from .records import run


def row(number, **more):
    return {"prompt_id": number, "confidence": 0.5, "correct": 1, "question": f"Q{number}", "response": "R", **more}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


def sources(*folders, **limits):
    return completions_of([RunSet(folder.name, [run(folder)]) for folder in folders], **limits)


def data_of(page):
    """What the page gives to its script."""
    return json.loads(page.split('id="completions-data">')[1].split("</script>")[0])


def test_every_file_of_predictions_is_read_and_named(tmp_path):
    names = ("predictions.greedy", "predictions.chemistry.v2.sampled", "predictions.mine")
    for name in names:
        write(tmp_path / "step_000008" / f"{name}.jsonl", [row(1)])
    write(tmp_path / "step_000004-run2" / "predictions.greedy.jsonl", [row(1), row(2)])
    write(tmp_path / "predictions.sampled.jsonl", [row(1)])
    found = {(each.step, each.task, each.event): (each.total, len(each.shown)) for each in sources(tmp_path)}
    assert found == {
        ("step_000008", "", "greedy"): (1, 1),
        ("step_000008", "chemistry.v2", "sampled"): (1, 1),
        ("step_000008", "mine", ""): (1, 1),
        ("step_000004-run2", "", "greedy"): (2, 2),
        ("", "", "sampled"): (1, 1),
    }


def test_a_completion_is_what_its_line_says(tmp_path):
    rows = [
        row(7, sample=3, category="easy", response="B\n\x1b[2J", target="C", answer="B", correct=0, confidence=1),
        {"confidence": None, "correct": None, "confidence_outcome": "missing", "question": ["a", 1]},
    ]
    write(tmp_path / "predictions.greedy.jsonl", rows)
    first, second = sources(tmp_path)[0].shown
    assert (first.prompt, first.sample) == (("7", "easy", "Q7", "C"), 3)
    assert (first.response, first.answer, first.correct, first.confidence) == ("B\n\\x1b[2J", "B", False, 1)
    assert (second.prompt, second.sample) == (("", "", '["a", 1]', ""), None)
    assert (second.response, second.correct, second.confidence, second.outcome) == ("", None, None, "missing")


def test_a_run_without_predictions_shows_its_last_rollouts(tmp_path, group_of):
    group = group_of(Example("p", "Q", "A", category="c"), [("A\nConfidence: 0.50", True), ("B", False)], mu_hat=0.25)
    for number in (0, 1):
        save_groups(tmp_path / "rollouts" / f"round_0000{number}.jsonl", [group] * (number + 1))
    (source,) = sources(tmp_path)
    assert (source.step, source.event, source.total) == ("round_00001", "sampled", 4)
    one, other = source.shown[:2]
    assert (one.prompt, one.sample, one.confidence, one.correct, one.mu_hat) == (
        ("p", "c", "Q", "A"),
        0,
        0.5,
        True,
        0.25,
    )
    assert (other.sample, other.response, other.confidence, other.outcome) == (1, "B", None, "missing")
    write(tmp_path / "predictions.greedy.jsonl", [row(1)])
    assert [each.file.name for each in sources(tmp_path)] == ["predictions.greedy.jsonl"]


def test_a_page_is_bounded_small_files_are_whole_and_what_is_left_out_is_said(tmp_path):
    long = [row(number, response="r" * 1000) for number in range(1000)]
    write(tmp_path / "a" / "predictions.greedy.jsonl", long)
    write(tmp_path / "b" / "predictions.greedy.jsonl", long)
    write(tmp_path / "c" / "predictions.greedy.jsonl", [{"confidence": 0.5, "correct": 1}] * 100)
    found = sources(tmp_path / "a", tmp_path / "b", tmp_path / "c", most=500_000)
    large, other, small = (len(each.shown) for each in found)
    assert (other, small) == (large, 100)
    assert 200 < large < 250
    assert [each.prompt[0] for each in found[0].shown] == [str(number) for number in range(large)]
    assert len(browser(found)) < 550_000
    table = completions_table(found)
    assert f"shows {2 * large + 100} of 2,100" in table.note
    assert "the first ones of every file" in table.note
    assert [(each["shown"], each["completions"]) for each in table.rows] == [(large, 1000), (large, 1000), (100, 100)]
    assert table.rows[0]["file"] == str(tmp_path / "a" / "predictions.greedy.jsonl")
    assert "shows all 2,100," in completions_table(sources(tmp_path / "a", tmp_path / "b", tmp_path / "c")).note


def test_of_a_long_text_the_middle_is_left_out(tmp_path):
    write(tmp_path / "predictions.greedy.jsonl", [row(1, response="a" * MAX_CHARACTERS + "zz")])
    text = sources(tmp_path)[0].shown[0].response
    half = MAX_CHARACTERS // 2
    assert text == f"{'a' * half} [... 2 characters ...] {'a' * (half - 2)}zz"


def test_a_prompt_is_in_the_page_once(tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder / "predictions.greedy.jsonl", [row(1), row(2), row(1)])
    data = data_of(browser(sources(tmp_path / "a", tmp_path / "b")))
    assert data["prompts"] == [["1", "", "Q1", ""], ["2", "", "Q2", ""]]
    assert [each[:2] for each in data["rows"]] == [[0, 0], [0, 1], [0, 0], [1, 0], [1, 1], [1, 0]]
    assert data["sources"] == [["a", "", "greedy", ""], ["b", "", "greedy", ""]]


def test_no_text_ends_the_element_that_holds_it(tmp_path):
    text = "</script><script>alert(1)</script><!--"
    write(tmp_path / "predictions.greedy.jsonl", [row(text, response=text)])
    page = browser(sources(tmp_path))
    assert page.count("</script>") == 2
    assert data_of(page)["prompts"][0][0] == data_of(page)["rows"][0][3] == text


def test_without_completions_the_page_says_why(tmp_path):
    table = completions_table(sources(tmp_path))
    assert table.rows == []
    assert "`caopd predict`" in table.note


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[]", "no JSON object"),
        ("{", "Expecting property name"),
        ('{"confidence": "0.5"}', "`confidence` is no number"),
        ('{"confidence": true}', "`confidence` is no number"),
        ('{"confidence": NaN}', "not from 0 to 1"),
        ('{"correct": 2}', "`correct` is neither"),
    ],
)
def test_a_line_that_is_no_completion_is_an_error_with_its_number(tmp_path, line, why):
    file = tmp_path / "step_000008" / "predictions.chemistry.greedy.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(row(1)) + f"\n\n{line}\n")
    with pytest.raises(DataError, match=rf"chemistry.greedy.jsonl.*line 3 is none \(.*{why}"):
        sources(tmp_path)
