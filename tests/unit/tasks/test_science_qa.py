import itertools
import json
import re
from pathlib import Path

import pytest

from caopd.errors import DataError
from caopd.tasks import DataSource, ScienceQA
from caopd.tasks.base import SPLITS
from caopd.tasks.science_qa import system_message

SCIENCE = Path(__file__).parents[4] / "shared" / "data" / "science"
with_real_data = pytest.mark.skipif(not SCIENCE.is_dir(), reason=f"no real data in {SCIENCE}")

PREPARED = {
    "idx": 3,
    "system": "\nAnswer in tags.\n",
    "prompt": "Which is a metal?\n\nA: sulfur\nB: iron\nPlease reason step by step.",
    "answer": "B",
}
HUB = {
    "question": "Which is a metal?",
    "choices": {"text": ["sulfur", "iron", "argon", "iodine"], "label": ["A", "B", "C", "D"]},
    "answerKey": "B",
    "type": "mcq-4-choices",
    "domain": "Chemistry",
    "details": {"level": "L3", "task": "t"},
    "prompt": {"default": "not used"},
}
OPEN_QUESTION = {**HUB, "choices": {"text": [], "label": []}, "answerKey": "", "type": "open-ended-qa"}


def task_of(tmp_path, rows, name="chemistry.test.jsonl", **arguments):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ScienceQA(DataSource(files={"test": str(path)}), **arguments)


def test_a_prepared_row_is_kept_as_it_is(tmp_path):
    (example,) = task_of(tmp_path, [PREPARED]).examples("test")
    assert (example.id, example.category) == ("chemistry-3", "chemistry")
    assert example.question == PREPARED["prompt"]
    assert example.system == PREPARED["system"]
    assert example.target == "B"
    assert example.demonstration == ("<reasoning>\nThe correct option is B: iron\n</reasoning>\n<answer>\nB\n</answer>")


def test_a_hub_row_is_rendered_in_the_prepared_form(tmp_path):
    (example,) = task_of(tmp_path, [HUB]).examples("test")
    assert (example.id, example.category) == ("chemistry-0", "chemistry")
    assert example.question == (
        "Which is a metal?\n\nA: sulfur\nB: iron\nC: argon\nD: iodine\nPlease reason step by step."
    )
    assert "four options" in example.system
    assert "(A, B, C, or D)" in example.system
    assert "B: iron" in example.demonstration


def test_a_demonstration_of_the_data_is_used(tmp_path):
    row = {**PREPARED, "demonstration": "Iron conducts.\n<answer>B</answer>\nConfidence: 1.00"}
    (example,) = task_of(tmp_path, [row]).examples("test")
    assert example.demonstration == "Iron conducts.\n<answer>B</answer>"


@pytest.mark.parametrize(
    ("prompt", "restated"),
    [
        ("Pick.\nA: a\nB: b: c\n", "B: b: c"),
        ("A: is this text\nPick.\n\nA: a\n\nB: last one\n\nC: c\n", "B: last one"),
        ("A: of this\nB: or that?\n\nA: a\nB: last one", "B: last one"),
        ("Pick one of two.", "B."),
        ("Pick.\nA: a\nC: c", "B."),
    ],
)
def test_the_option_is_restated_where_it_can_be_found(tmp_path, prompt, restated):
    (example,) = task_of(tmp_path, [{**PREPARED, "prompt": prompt}]).examples("test")
    assert example.demonstration.split("\n")[1] == f"The correct option is {restated}"


@pytest.mark.parametrize(
    ("name", "row", "identity", "category"),
    [
        ("physics.train.jsonl", {"idx": 5}, "physics-5", "physics"),
        ("test.jsonl", {"idx": 5}, "5", ""),
        ("test.jsonl", {"id": "a7", "idx": 5, "domain": "Biology"}, "biology-a7", "biology"),
        ("x.jsonl", {"idx": None}, "x-0", "x"),
    ],
)
def test_ids_are_unique_across_subjects(tmp_path, name, row, identity, category):
    (example,) = task_of(tmp_path, [{**PREPARED, **row}], name=name).examples("test")
    assert (example.id, example.category) == (identity, category)


def test_filters_keep_what_they_name(tmp_path):
    rows = [
        HUB,
        {**HUB, "domain": "Physics"},
        {**HUB, "details": {"level": "L1"}},
        OPEN_QUESTION,
    ]
    task = task_of(tmp_path, rows, subjects=["chemistry"], levels=["L3"], types=["mcq-4-choices"])
    assert [example.id for example in task.examples("test")] == ["chemistry-0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": ["physics"]}, r"`subjects` in \['physics'\].* only chemistry"),
        ({"levels": ["L5"]}, "only L3"),
        ({"types": ["true_or_false"]}, "only mcq-4-choices"),
    ],
)
def test_a_filter_that_leaves_nothing_says_what_there_is(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        task_of(tmp_path, [HUB], **arguments).examples("test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PREPARED, "answer": None}, "'answer'"),
        ({**PREPARED, "answer": "iron"}, "letter from A to Z, but got 'IRON'"),
        ({key: PREPARED[key] for key in ("idx", "answer")}, r"'prompt', but got None\. Columns: idx, answer"),
        ({**HUB, "answerKey": "E"}, "one of A, B, C, D, but got 'E'"),
        ({**HUB, "choices": {"text": ["x"], "label": ["A", "B"]}}, "equal length"),
        (OPEN_QUESTION, r"types: \[mcq-4-choices\]"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_never_skipped(tmp_path, row, message):
    with pytest.raises(DataError, match=message) as caught:
        task_of(tmp_path, [{**PREPARED, "idx": 1}, row]).examples("test")
    assert "chemistry.test.jsonl, line 2" in str(caught.value)


def test_levels_need_their_column(tmp_path):
    with pytest.raises(DataError, match=r"line 1: .*details\.level"):
        task_of(tmp_path, [PREPARED], levels=["L3"]).examples("test")


def test_one_split_of_the_hub_makes_three(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = [{**HUB, "question": f"Question {n}?"} for n in range(200)]
    DatasetDict(test=Dataset.from_list(rows)).save_to_disk(tmp_path / "hub")
    source = DataSource(
        path=str(tmp_path / "hub"),
        splits={"train": "test", "validation": "test"},
        shares={"train": 0.8, "validation": 0.1, "test": 0.1},
    )
    questions = [[e.question for e in ScienceQA(source).examples(split)] for split in SPLITS]
    assert sorted(itertools.chain(*questions)) == sorted(
        f"{row['question']}\n\nA: sulfur\nB: iron\nC: argon\nD: iodine\nPlease reason step by step." for row in rows
    )
    assert questions == [[e.question for e in ScienceQA(source).examples(split)] for split in SPLITS]


def test_the_system_message_counts_and_lists_the_options():
    assert "two options" in system_message("AB")
    assert "(A or B)" in system_message("AB")
    assert "10 options" in system_message("ABCDEFGHIJ")


@with_real_data
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("subject", ["chemistry", "physics", "biology", "material"])
def test_every_real_demonstration_is_correct_and_restates_its_option(subject, split):
    path = SCIENCE / f"{subject}.{split}.jsonl"
    task = ScienceQA(DataSource(files={split: str(path)}))
    examples = task.examples(split)
    assert len(examples) == len(path.read_text().splitlines())
    for example in examples:
        assert task.verifier.verify(example.demonstration, example.target).correct
        restated = example.demonstration.split("\n")[1].removeprefix("The correct option is ")
        assert f"\n{restated}" in example.question
        assert example.system == system_message("ABCD")


@with_real_data
@pytest.mark.parametrize("form", ["{}: {}", "{}. {}", "({}) {}", "{} - {}", "Option {}: {}", "**{}** \u2013 {}"])
def test_the_real_options_are_read_where_an_answer_restates_them(form):
    """A few of four thousand look like something else, such as a question; none is read as another letter."""
    read = {True: 0, False: 0}
    for path in SCIENCE.glob("*.jsonl"):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            option = re.search(rf"^{row['answer']}:[ \t]*(.*)$", row["prompt"], re.MULTILINE)
            answer = form.format(row["answer"], option[1])
            verdict = ScienceQA.verifier.verify(f"<answer>{answer}</answer>", row["answer"])
            assert verdict.answer in (row["answer"], None), answer
            read[verdict.correct] += 1
    assert read[True] > 0.97 * sum(read.values()), read


@with_real_data
def test_all_real_subjects_make_one_task_with_unique_ids():
    files = [str(path) for path in sorted(SCIENCE.glob("*.test.jsonl"))]
    task = ScienceQA(DataSource(files={"test": files}), subjects=["Physics", "chemistry"])
    assert {example.category for example in task.examples("test")} == {"physics", "chemistry"}
