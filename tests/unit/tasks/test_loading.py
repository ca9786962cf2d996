import json

import pytest

from caopd.errors import ConfigError, DataError
from caopd.tasks.base import SPLITS
from caopd.tasks.loading import DataSource, in_share, load_rows, select_examples
from caopd.tasks.rows import Row, given_demonstration
from caopd.types import Example

ROWS = [{"prompt": "1 + 1", "answer": "2"}, {"prompt": "2 + 2", "answer": "4"}]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def values_of(source, split="train"):
    return [dict(row.values) for row in load_rows(source, split)]


def test_json_lines_keep_types_and_line_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"answer": "1"}\r\n\n{"answer": {"n": [1, null]}, "more": "a\u2028b"}', encoding="utf-8")
    rows = load_rows(DataSource(files={"train": str(path)}), "train")
    assert [row.values for row in rows] == [{"answer": "1"}, {"answer": {"n": [1, None]}, "more": "a\u2028b"}]
    assert [row.where for row in rows] == [f"{path}, line 1", f"{path}, line 3"]
    assert [(row.number, row.file) for row in rows] == [(0, "a.jsonl"), (1, "a.jsonl")]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list(tmp_path, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS, indent=indent))
    rows = load_rows(DataSource(files={"train": str(path)}), "train")
    assert [row.values for row in rows] == ROWS
    assert rows[1].where == f"{path}, item 2"


def test_a_json_file_of_lines(tmp_path):
    assert values_of(DataSource(files={"train": write_lines(tmp_path / "a.json", ROWS)})) == ROWS


def test_parquet(tmp_path):
    from datasets import Dataset

    path = str(tmp_path / "a.parquet")
    Dataset.from_list(ROWS).to_parquet(path)
    assert values_of(DataSource(files={"train": path})) == ROWS
    assert values_of(DataSource(path=path)) == ROWS


def test_several_files_make_one_split_in_their_order(tmp_path):
    first, second = write_lines(tmp_path / "a.jsonl", ROWS[:1]), write_lines(tmp_path / "b.jsonl", ROWS[1:])
    rows = load_rows(DataSource(files={"train": [second, first]}), "train")
    assert [(row.values, row.number, row.file) for row in rows] == [
        (ROWS[1], 0, "b.jsonl"),
        (ROWS[0], 1, "a.jsonl"),
    ]


def test_a_saved_data_set_and_a_saved_dictionary_of_them(tmp_path):
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    DatasetDict(train=data.select([0]), dev=data.select([1])).save_to_disk(tmp_path / "two")
    assert values_of(DataSource(path=str(tmp_path / "one"))) == ROWS
    two = DataSource(path=str(tmp_path / "two"), splits={"validation": "dev"})
    assert (values_of(two, "train"), values_of(two, "validation")) == (ROWS[:1], ROWS[1:])
    with pytest.raises(ConfigError, match=r"'test' .* it has train, dev"):
        load_rows(two, "test")


def test_a_directory_of_data_files(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_lines(folder / "train.jsonl", ROWS)
    assert values_of(DataSource(path=str(folder))) == ROWS


def test_columns_are_renamed_and_the_others_stay(tmp_path):
    source = DataSource(files={"train": write_lines(tmp_path / "a.jsonl", ROWS)}, columns={"question": "prompt"})
    assert values_of(source)[0] == {"question": "1 + 1", "prompt": "1 + 1", "answer": "2"}


def test_a_missing_column_is_named_beside_those_that_exist(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match=rf"{path}, line 1: .*'query'.*Columns: prompt, answer\. Correct `columns`"):
        load_rows(DataSource(files={"train": path}, columns={"question": "query"}), "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at least one row"),
        (b"\n \n", "at least one row"),
        (b'{"a": 1}\n{"a": 1\n', "line 2: expected a JSON object"),
        (b'{"a": 1}\n[1]\n', r"line 2: expected a JSON object, but got \[1\]"),
        (b'{"a": "\xff"}\n', "UTF-8"),
        (b"[" * 200_000, "line 1"),
    ],
)
def test_a_file_that_cannot_be_used_says_which_and_where(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_rows(DataSource(files={"train": str(path)}), "train")
    assert "a.jsonl" in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("row", [{"question": "Is it \ud83d?"}, {"question": "Q", "tools": [{"name": "\udce9"}]}])
def test_half_a_surrogate_pair_is_an_error_with_its_line(tmp_path, row):
    path = write_lines(tmp_path / "rows.jsonl", [{"question": "a whole one: 👍"}, row])
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: .*half of a surrogate pair: .*\\ud"):
        values_of(DataSource(files={"train": path}))


def test_a_broken_parquet_file_is_an_error_with_its_name(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        load_rows(DataSource(files={"train": str(tmp_path / "a.parquet")}), "train")


def test_a_missing_file_and_a_missing_directory(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl, but there is none"):
        load_rows(DataSource(files={"train": str(tmp_path / "none.jsonl")}), "train")
    with pytest.raises(DataError, match="save_to_disk"):
        load_rows(DataSource(path=str(tmp_path / "none")), "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of `path` and `files`"),
        ({"path": "a", "files": {"train": "b.jsonl"}}, "exactly one of `path` and `files`"),
        ({"files": {}}, "at least one split"),
        ({"files": {"train": []}}, "at least one file"),
        ({"path": "a", "splits": {"dev": "test"}}, "'dev'"),
        ({"path": "a", "shares": {"dev": 0.5}}, "'dev'"),
        ({"path": "a", "shares": {"train": 0.0}}, "positive"),
        ({"path": "a", "splits": {"test": "train"}, "shares": {"train": 0.8, "test": 0.3}}, "at most 1"),
        ({"path": "a", "splits": {"test": "train"}, "shares": {"train": 0.8}}, "each of train, test"),
    ],
)
def test_a_source_that_cannot_work_is_refused_at_construction(arguments, message):
    with pytest.raises(ConfigError, match=message):
        DataSource(**arguments)


def test_an_unknown_split_and_a_split_that_the_source_lacks():
    source = DataSource(files={"train": "a.jsonl"})
    with pytest.raises(ConfigError, match=r"train, validation, test, but got 'dev'"):
        load_rows(source, "dev")
    with pytest.raises(ConfigError, match=r"`splits: \{validation: train\}`"):
        load_rows(source, "validation")


def test_an_unknown_kind_of_file():
    with pytest.raises(ConfigError, match=r"\.jsonl, \.json, \.csv, \.parquet, but got a\.tsv"):
        load_rows(DataSource(files={"train": "a.tsv"}), "train")


def test_a_table_of_comma_separated_values(tmp_path):
    path = tmp_path / "a.csv"
    long = "x" * 200_000
    path.write_text(f'\ufeffQ,A\r\n"1, ""or"" 2\nlines?",2\r\n\r\n{long},\r\n', encoding="utf-8")
    rows = load_rows(DataSource(files={"train": str(path)}, columns={"question": "Q"}), "train")
    assert [(row.values["question"], row.values["A"]) for row in rows] == [('1, "or" 2\nlines?', "2"), (long, "")]
    assert [row.where for row in rows] == [f"{path}, line 3", f"{path}, line 5"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Q,A\n1,2\n3\n", r"line 3: expected 2 values, .* but got 1"),
        ("Q,A\n1,2,3\n", r"line 2: expected 2 values, .* but got 3"),
        ("Q,Q\n1,2\n", r"line 1: expected a different name for every column, but got Q, Q"),
        ('Q,A\n"1"2,3\n', r"line 2: expected comma-separated values"),
        ('Q,A\n"1,2\n', r"expected comma-separated values"),
        ("Q,A\n", r"at least one row"),
        ("", r"at least one row"),
    ],
)
def test_a_table_that_is_none(tmp_path, text, problem):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=problem):
        load_rows(DataSource(files={"train": str(tmp_path / "a.csv")}), "train")


def test_columns_within_columns_and_several_for_one_field(tmp_path):
    row = {"answer": {"value": "x", "all": ["x", "y"]}, "a.b": 1, "Right": "r", "Wrong 1": "w"}
    columns = {"answer": "answer.value", "aliases": "answer.all", "number": "a.b", "choices": ["Right", "Wrong 1"]}
    path = write_lines(tmp_path / "a.jsonl", [row])
    (values,) = values_of(DataSource(files={"train": path}, columns=columns))
    assert (values["answer"], values["aliases"], values["number"]) == ("x", ["x", "y"], 1)
    assert values["choices"] == ["r", "w"]
    for column in ("answer.none", "Right.value", "none.value", ["Right", "none"]):
        with pytest.raises(DataError, match=r"line 1: Expected a column .* names it for 'field'"):
            values_of(DataSource(files={"train": path}, columns={"field": column}))


HUB = DataSource(
    path="hub/data",
    splits={"train": "test", "validation": "test"},
    shares={"train": 0.7, "validation": 0.2, "test": 0.1},
)


def test_shares_are_disjoint_complete_stable_and_about_as_large_as_asked():
    ids = [str(number) for number in range(5000)]
    members = {split: {i for i in ids if in_share(HUB, split, i)} for split in SPLITS}
    assert sorted(i for split in SPLITS for i in members[split]) == sorted(ids)
    for split, share in HUB.shares.items():
        assert abs(len(members[split]) / len(ids) - share) < 0.02
    # The first ids of each share, computed once: a change would mix the splits of existing runs.
    assert [next(i for i in ids if i in members[split]) for split in SPLITS] == ["0", "2", "10"]


def test_another_seed_splits_otherwise():
    other = DataSource(path=HUB.path, splits=HUB.splits, shares=HUB.shares, seed=7)
    ids = [str(number) for number in range(200)]
    assert [i for i in ids if in_share(other, "train", i)] != [i for i in ids if in_share(HUB, "train", i)]


def test_without_shares_every_row_belongs_to_the_split():
    source = DataSource(path="a", splits={"validation": "test"})
    assert all(in_share(source, split, str(n)) for split in SPLITS for n in range(500))


def example(identity):
    return Example(id=identity, question="q", target="t")


def test_ids_that_repeat_name_both_rows():
    rows = [Row({"prompt": "q"}, f"a.jsonl, line {n}", n) for n in (1, 2)]
    with pytest.raises(DataError, match=r"line 2: .* 'x' is also the id of a\.jsonl, line 1"):
        select_examples(DataSource(path="a"), "train", [(row, example("x")) for row in rows])


def test_a_share_that_leaves_nothing_is_an_error():
    kept = next(str(n) for n in range(100) if in_share(HUB, "train", str(n)))
    with pytest.raises(DataError, match="none of the 1 rows"):
        select_examples(HUB, "test", [(Row({}, "a", 0), example(kept))])


@pytest.mark.parametrize("value", [None, "", " \n", 3, ["a"]])
def test_a_text_that_is_missing_says_what_came_instead(value):
    row = Row({"prompt": value, "more": 1}, "a.jsonl, line 7", 6)
    with pytest.raises(DataError, match=r"a\.jsonl, line 7: .* 'prompt', but got .*Columns: prompt, more"):
        row.text("prompt")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("So B.\n<answer>B</answer>\nConfidence: 1.00", "So B.\n<answer>B</answer>"),
        ("<answer>B</answer> <confidence>1.00</confidence>\n", "<answer>B</answer>"),
        ("My confidence: high, as\n<answer>B</answer>", "My confidence: high, as\n<answer>B</answer>"),
        ("<answer>B</answer>\n**Confidence:** 95%", "<answer>B</answer>"),
        *[
            (whole, whole)
            for whole in (
                "It is with full confidence: B.",
                "So:\nConfidence: it must be B.",
                "Confidence: 0.9, and that is for B",
                "Confidence: 0.9, so the answer is B.",
                'Action: note\nAction Input: {"text": "confidence: 0.9"}',
                "<think>B?\nConfidence: 0.9</think>",
            )
        ],
        ("<answer>B</answer>", "<answer>B</answer>"),
        (None, None),
        ("", None),
    ],
)
def test_a_given_demonstration_loses_the_confidence_at_its_end_only(given, kept):
    assert given_demonstration(Row({"demonstration": given}, "a", 0)) == kept
