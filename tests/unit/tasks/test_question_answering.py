import csv
import json
import warnings

import pandas
import pytest
from datasets import Dataset

from caopd.errors import ConfigError, DataError
from caopd.tasks import DataSource, QuestionAnswering
from caopd.tasks.question_answering import INSTRUCTION
from caopd.types import AnswerOutcome
from caopd.verifiers import ExactMatch, Judge, MultipleChoice, Numeric, ServedModel, ShortAnswer

QUESTION = {"question": "What is the capital of France?", "answer": "Paris"}
CHOICES = {"question": "Which is a noble gas?", "choices": ["iron", "neon", "lead"], "answer": "neon"}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def examples(tmp_path):
    def read(rows, split="train", columns=None, **arguments):
        file = write_lines(tmp_path / "rows.jsonl", rows)
        arguments.setdefault("verifier", ShortAnswer())
        return QuestionAnswering(DataSource(files={split: file}, columns=columns or {}), **arguments).examples(split)

    return read


def test_a_question_and_its_answer(examples):
    (example,) = examples([QUESTION])
    assert example.question == f"What is the capital of France?\n{INSTRUCTION}"
    assert (example.target, example.id, example.category, example.system) == ("Paris", "0", "", None)
    assert example.demonstration == "<answer>Paris</answer>"


def test_columns_under_other_names(examples):
    row = {"Q": "Who?", "A": {"value": "Ann", "more": ["Anna", "Ann"]}, "key": 7, "level": 3, "intro": "Be brief."}
    columns = {
        "question": "Q",
        "answer": "A.value",
        "aliases": "A.more",
        "id": "key",
        "category": "level",
        "system": "intro",
    }
    (example,) = examples([row], columns=columns)
    assert (example.id, example.category, example.system) == ("3-7", "3", "Be brief.")
    assert json.loads(example.target) == ["Ann", "Anna"]
    assert ShortAnswer().verify("<answer>anna</answer>", example.target).correct


@pytest.mark.parametrize(
    ("written", "accepted"),
    [("  Paris ", ["Paris"]), (4, ["4"]), (2.5, ["2.5"]), (["Paris", "Lutetia"], ["Paris", "Lutetia"])],
)
def test_forms_of_answers(examples, written, accepted):
    (example,) = examples([{**QUESTION, "answer": written}])
    assert example.demonstration == f"<answer>{accepted[0]}</answer>"
    for answer in accepted:
        assert ShortAnswer().verify(answer, example.target).correct


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (["iron", "neon", "lead"], "neon", "B"),
        (["iron", "neon", "lead"], "B", "B"),
        (["iron", "neon", "lead"], 1, "B"),
        (["A", "B", "A"], "B", "B"),
        (["B", "A"], "A", "B"),
        ({"text": ["iron", "neon"], "label": ["1", "2"]}, "2", "B"),
        ({"text": ["iron", "neon"], "label": ["1", "2"]}, 1, "A"),
        ({"text": ["iron", "neon"], "label": [1, 2]}, 2, "B"),
        ({"1": "iron", "2": "neon"}, 1, "A"),
        ('["iron", "neon"]', "neon", "B"),
        ({"label": ["A", "B"], "text": ["B", "A"]}, "A", "A"),
        ({"a": "iron", "b": "neon"}, "b", "B"),
        ({"a": "iron", "b": "neon"}, "neon", "B"),
    ],
)
def test_forms_of_choices(examples, choices, answer, letter):
    (example,) = examples([{**CHOICES, "choices": choices, "answer": answer}], verifier=MultipleChoice())
    assert example.target == letter
    assert MultipleChoice().verify(example.demonstration, letter).correct


def test_a_question_with_choices_is_worded_with_letters(examples):
    (example,) = examples([CHOICES], verifier=MultipleChoice())
    assert example.question == f"Which is a noble gas?\n\nA: iron\nB: neon\nC: lead\n{INSTRUCTION}"
    assert example.demonstration == "B: neon\n<answer>B</answer>"


def test_shuffled_choices_depend_on_the_row_alone(examples):
    rows = [{**CHOICES, "id": f"r{n}", "choices": ["neon", "iron", "lead", "zinc"]} for n in range(40)]
    rows = [{**row, "question": f"Which, {row['id']}?"} for row in rows]
    shuffled = examples(rows, verifier=MultipleChoice(), shuffle_choices=True)
    assert {example.target for example in shuffled} == set("ABCD")
    for example in shuffled:
        assert f"{example.target}: neon" in example.question.splitlines()
    again = examples(rows[::-1], verifier=MultipleChoice(), shuffle_choices=True)
    assert {example.id: example for example in again} == {example.id: example for example in shuffled}


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        ("One. Two.", "One. Two."),
        (["One.", "Two."], "One.\n\nTwo."),
        ([["One.", " More."], ["Two."]], "One. More.\n\nTwo."),
        ({"title": ["T1", "T2"], "sentences": [["One.", " More."], ["Two."]]}, "T1\nOne. More.\n\nT2\nTwo."),
    ],
)
def test_forms_of_contexts(examples, context, shown):
    (example,) = examples([{**QUESTION, "context": context}])
    assert example.question == f"{shown}\n\nWhat is the capital of France?\n{INSTRUCTION}"


def test_a_demonstration_gets_the_tags_that_are_asked_for(examples):
    rows = [{**QUESTION, "demonstration": text} for text in ("It is Paris.", "It is <answer>Paris</answer>")]
    rows = [{**row, "question": f"{n}?"} for n, row in enumerate(rows)]
    shown = [example.demonstration for example in examples(rows)]
    assert shown == ["It is Paris.\n<answer>Paris</answer>", "It is <answer>Paris</answer>"]
    assert examples(rows, instruction="Be brief.")[0].demonstration == "It is Paris."
    assert [example.question for example in examples(rows, instruction="")] == ["0?", "1?"]


def test_the_answer_behind_a_mark_and_a_demonstration_before_it(examples):
    row = {"question": "6 packs of 3?", "answer": "6 * 3 = <<6*3=18>>18\n#### 18"}
    (example,) = examples([row], answer_after="####", verifier=Numeric())
    assert example.target == "18"
    assert example.demonstration == "6 * 3 = <<6*3=18>>18\n<answer>18</answer>"
    with pytest.raises(DataError, match=r"line 1: Expected '####' before the answer"):
        examples([{**row, "answer": "18"}], answer_after="####")


def messages(*pairs):
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_a_chat(examples):
    chat = messages(
        ("system", "Be brief."), ("user", "Capital of France?"), ("assistant", "So:\n<answer>Paris</answer>")
    )
    (example,) = examples([chat])
    assert example.question == f"Capital of France?\n{INSTRUCTION}"
    assert (example.system, example.target) == ("Be brief.", "Paris")
    assert example.demonstration == "So:\n<answer>Paris</answer>"


def test_a_chat_whose_answer_has_a_column_of_its_own(examples):
    (example,) = examples([{**messages(("user", "Capital?"), ("assistant", "It is\nParis.")), "answer": "Paris"}])
    assert (example.target, example.demonstration) == ("Paris", "It is\nParis.\n<answer>Paris</answer>")
    (example,) = examples([{**messages(("user", "Capital?")), "answer": "Paris"}])
    assert (example.target, example.demonstration) == ("Paris", "<answer>Paris</answer>")


@pytest.mark.parametrize(
    "chat",
    [
        messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
        messages(("assistant", "b")),
        messages(),
        {"messages": "user: a"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": ["a"]},
    ],
)
def test_other_chats_are_errors(examples, chat):
    with pytest.raises(DataError, match=r"line 1: Expected `messages` to be a list of \{role, content\}"):
        examples([{**chat, "answer": "x"}])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"question": " "}, "non-empty text in column 'question'"),
        ({"answer": ""}, "a text, a number or a list of them in column 'answer', but got ''"),
        ({"answer": None}, "column 'answer', but got None"),
        ({"answer": []}, "column 'answer'"),
        ({"answer": {"value": 1}}, "column 'answer'"),
        ({"answer": float("nan")}, "column 'answer', but got None"),
        ({"aliases": [None]}, r"a list of texts or numbers in column 'aliases', but got \[None\]"),
        ({"id": " "}, "an id, but got an empty text"),
        ({"choices": ["Paris", " "]}, "a list of 2 to 26 texts.* none of them empty"),
        ({"choices": {"text": ["Rome", "Paris"], "label": ["1", "2"]}, "answer": 0}, "one of the 2 choices, but got 0"),
        ({"aliases": "Lutetia"}, "a list of texts or numbers in column 'aliases'"),
        ({"context": 3}, "a context to be a text"),
        ({"context": {"a": ["x"], "b": []}}, "a context to be a text"),
        ({"choices": ["Paris"]}, "a list of 2 to 26 texts"),
        ({"choices": ["Paris", 3]}, "a list of 2 to 26 texts"),
        ({"choices": {"text": ["Paris", "Rome"]}}, "a list of 2 to 26 texts"),
        ({"choices": ["Rome", "Oslo"]}, "the label, the number from 0 or the text of one of the 2 choices"),
        ({"choices": ["Rome", "Oslo"], "answer": 2}, "one of the 2 choices, but got 2"),
        ({"choices": ["Paris", "Paris"]}, "one of the 2 choices"),
    ],
)
def test_a_row_that_cannot_be_used_is_an_error_that_names_it(examples, change, problem):
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: .*{problem}"):
        examples([{**QUESTION, "question": "Another?"}, {**QUESTION, **change}])


def test_a_row_without_an_answer_names_its_columns(examples):
    with pytest.raises(DataError, match=r"line 1: Expected a column 'answer'.*Columns: question, ' answer'\. Correct"):
        examples([{"question": "Capital?", " answer": "Paris"}])
    with pytest.raises(DataError, match=r"line 1: Expected a column 'answer', or `messages` with one of the assistant"):
        examples([messages(("user", "Capital?"))])
    with pytest.raises(DataError, match=r"Expected a question in the user's message of `messages`, but it is empty"):
        examples([{**messages(("user", " ")), "answer": "Paris"}])


def test_a_column_for_what_is_no_field_is_refused(examples):
    with pytest.raises(ConfigError, match=r"but got 'demonstrations'\. Did you mean 'demonstration'\?"):
        examples([QUESTION], columns={"demonstrations": "D"})


def test_missing_values_of_a_table_are_none(tmp_path):
    rows = [{**QUESTION, "category": "a", "context": "Text."}, {"question": "Another?", "answer": "Rome"}]
    Dataset.from_pandas(pandas.DataFrame(rows)).to_parquet(tmp_path / "rows.parquet")
    source = DataSource(files={"train": str(tmp_path / "rows.parquet")})
    first, second = QuestionAnswering(source, ShortAnswer()).examples("train")
    assert (first.category, second.category) == ("a", "")
    assert second.question == f"Another?\n{INSTRUCTION}"
    pandas.DataFrame({"question": ["Two?"], "answer": [2.0], "category": [float("nan")]}).to_parquet(
        tmp_path / "rows.parquet"
    )
    (example,) = QuestionAnswering(source, ShortAnswer()).examples("train")
    assert (example.target, example.category) == ("2.0", "")
    assert ShortAnswer().verify("<answer>2</answer>", example.target).correct


def test_a_category_may_be_zero(examples):
    (example,) = examples([{**QUESTION, "category": 0}])
    assert (example.category, example.id) == ("0", "0-0")


def test_a_confidence_in_a_chat_is_taken_off(examples):
    for response, shown in (("Paris\nConfidence: 0.9", "Paris"), ("Paris", "Paris")):
        (example,) = examples([messages(("user", "Capital?"), ("assistant", response))])
        assert (example.target, example.demonstration) == ("Paris", f"{shown}\n<answer>Paris</answer>")


def test_what_is_shown_must_be_what_the_verifier_reads(examples):
    with pytest.raises(
        DataError, match=r"Expected MultipleChoice to read the answer in what shows it, 'B'.*<answer> tags"
    ):
        examples([CHOICES], verifier=MultipleChoice(), instruction="")
    assert examples([CHOICES], verifier=ShortAnswer(), instruction="")[0].demonstration == "B"


@pytest.mark.parametrize("given", ["It is <answer>Rome</answer>", "It is <answer>Paris", "<answer></answer>"])
def test_a_demonstration_that_contradicts_the_answer_is_an_error(examples, given):
    with pytest.raises(DataError, match=r"line 1: Expected the demonstration to state the answer 'Paris'.* reads"):
        examples([{**QUESTION, "demonstration": given}])
    judge = Judge(ServedModel("http://127.0.0.1:9/v1", "m"))
    assert examples([{**QUESTION, "demonstration": given}], verifier=judge)[0].demonstration.startswith(given)


def test_an_answer_that_the_verifier_does_not_compare_with_names_the_row(examples):
    with pytest.raises(DataError, match=r"line 1: Expected the target of a question for a number"):
        examples([QUESTION], verifier=Numeric())
    with pytest.raises(
        DataError, match=r"line 1: Expected one answer, which is what ExactMatch compares with, but got 2"
    ):
        examples([{**QUESTION, "answer": ["a", "b"]}], verifier=ExactMatch())


def test_a_judge_is_told_the_question_and_not_how_to_answer(examples):
    (example,) = examples([QUESTION], verifier=Judge(ServedModel("http://127.0.0.1:9/v1", "m")))
    assert json.loads(example.target) == {"question": "What is the capital of France?", "answers": ["Paris"]}


def test_the_same_question_in_two_splits_is_an_error_that_names_the_rows(tmp_path):
    rows = [{"question": f"Question {n}?", "answer": "x"} for n in range(6)]
    train = write_lines(tmp_path / "train.jsonl", rows)
    other = [{"question": "New?", "answer": "y"}, {"question": "  question 4", "answer": "y"}]
    for split in ("validation", "test"):
        source = DataSource(files={"train": train, split: write_lines(tmp_path / f"{split}.jsonl", other)})
        with pytest.raises(DataError) as error:
            QuestionAnswering(source, ShortAnswer()).examples("train")
        named = f"{tmp_path}/train.jsonl, line 5 (train) and {tmp_path}/{split}.jsonl, line 2 ({split})"
        assert "1 of 6" in str(error.value)
        assert named in str(error.value)
        assert "`exclude_leaked: true`" in str(error.value)
        with pytest.warns(UserWarning, match="1 of 6 rows of train are left out"):
            kept = QuestionAnswering(source, ShortAnswer(), exclude_leaked=True).examples("train")
        assert [example.id for example in kept] == ["0", "1", "2", "3", "5"]
        assert len(QuestionAnswering(source, ShortAnswer()).examples(split)) == 2


def test_one_split_for_all_without_shares_is_leakage_and_with_shares_is_not(tmp_path):
    file = write_lines(tmp_path / "rows.jsonl", [{"question": f"Question {n}?", "answer": "x"} for n in range(60)])
    whole = DataSource(path=file, splits={"validation": "train", "test": "train"})
    for exclude in (False, True):
        with pytest.raises(DataError, match=r"60 of 60 are:\n(.*\n){5}\.\.\.\nCorrect `splits` and `shares`"):
            QuestionAnswering(whole, ShortAnswer(), exclude_leaked=exclude).examples("train")
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    task = QuestionAnswering(
        DataSource(path=file, splits={"validation": "train", "test": "train"}, shares=shares), ShortAnswer()
    )
    assert sum(len(task.examples(split)) for split in ("train", "validation", "test")) == 60


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("What is 3 + 5?", "What is 3 - 5?", False),
        ("What is 3 - 5?", "What is 3 * 5?", False),
        ("Is x > 5?", "Is x < 5?", False),
        ("What is |-5|?", "What is |5|?", False),
        ("What is C++?", "What is C#?", False),
        ("What is 5 % of 8?", "What is 5 of 8?", False),
        ("Who was Jos\u00e9?", "Who was Jose\u0301?", True),
        ("Who was \uff21\uff4e\uff4e?", "Who was Ann?", True),
        ("What is COVID-19?", "what is **covid 19**", True),
        ("A well-known one?", "a well known one", True),
    ],
)
def test_what_makes_two_questions_the_same(tmp_path, one, other, is_same):
    rows = {"train": [one, "Another?"], "test": [other]}
    files = {
        split: write_lines(tmp_path / f"{split}.jsonl", [{"question": text, "answer": "x"} for text in texts])
        for split, texts in rows.items()
    }
    task = QuestionAnswering(DataSource(files=files), ShortAnswer(), exclude_leaked=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(task.examples("train")) == (1 if is_same else 2)
    found = [str(each.message) for each in told if "left out" in str(each.message)]
    assert found == (
        ["1 of 2 rows of train are left out: their question is in another split, too (`exclude_leaked`)."] * is_same
    )


def test_questions_with_other_contexts_or_choices_are_other_questions(tmp_path):
    rows = [{"question": "Who?", "context": f"Text {n}.", "answer": "x", "id": n} for n in range(2)]
    files = {split: write_lines(tmp_path / f"{split}.jsonl", [rows[n]]) for n, split in enumerate(("train", "test"))}
    assert QuestionAnswering(DataSource(files=files), ShortAnswer()).examples("train")
    shuffled = [{**CHOICES, "choices": order} for order in (["iron", "neon", "lead"], ["neon", "lead", "iron"])]
    files = {
        split: write_lines(tmp_path / f"{split}.jsonl", [shuffled[n]]) for n, split in enumerate(("train", "test"))
    }
    with pytest.raises(DataError, match="1 of 1"):
        QuestionAnswering(DataSource(files=files), verifier=MultipleChoice()).examples("train")


def test_a_table_of_comma_separated_values(tmp_path):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Q", "A", "x", "y"], ["1 + 1, 2 + 2?", "1,692", "no", "1,692"]])
    columns = {"question": "Q", "answer": "A"}
    (example,) = QuestionAnswering(DataSource(path=str(tmp_path / "rows.csv"), columns=columns), Numeric()).examples(
        "train"
    )
    assert (example.question.splitlines()[0], example.target) == ("1 + 1, 2 + 2?", "1,692")
    columns["choices"] = ["x", "y"]
    (example,) = QuestionAnswering(
        DataSource(path=str(tmp_path / "rows.csv"), columns=columns), MultipleChoice()
    ).examples("train")
    assert example.target == "B"


def test_lists_in_a_table_are_json_and_a_suffix_may_be_in_capitals(tmp_path):
    with (tmp_path / "rows.CSV").open("w", newline="") as file:
        rows = [["Q?", "Paris", '["Lutetia"]'], ["P?", "Rome", ""]]
        csv.writer(file).writerows([["question", "answer", "aliases"], *rows])
    first, second = QuestionAnswering(DataSource(path=str(tmp_path / "rows.CSV")), ShortAnswer()).examples("train")
    assert (json.loads(first.target), second.target) == (["Paris", "Lutetia"], "Rome")


def test_a_blank_completion_is_missing(examples):
    (example,) = examples([QUESTION])
    assert ShortAnswer().verify("", example.target).outcome is AnswerOutcome.MISSING


def test_an_unknown_split_is_refused(examples):
    with pytest.raises(ConfigError, match=r"`split` to be one of train, validation, test"):
        QuestionAnswering(DataSource(path="a.csv"), ShortAnswer()).examples("dev")
