import os
from pathlib import Path

import pytest

from caopd.commands.outputs import tell, together


def contents(directory):
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def write(folder, **texts):
    """Write each text into the folder and below it."""
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / name).write_text(text)


def write_half(folder):
    write(folder, a="new")
    raise ValueError("in the middle")


def test_files_appear_at_the_end(tmp_path):
    target = tmp_path / "deep" / "target"
    with together(target) as folder:
        write(folder, a="1")
        assert not target.exists()
    assert contents(tmp_path / "deep") == {"target/a": "1", "target/sub/a": "1"}
    plain = tmp_path / "plain"
    plain.mkdir()
    assert target.stat().st_mode == plain.stat().st_mode


def test_files_of_a_directory_are_replaced_and_others_stay(tmp_path):
    write(tmp_path, a="old", b="old")
    with together(tmp_path) as folder:
        write(folder, a="new", c="new")
        assert (tmp_path / "a").read_text() == "old"
    assert contents(tmp_path) == {
        **{"a": "new", "b": "old", "c": "new"},
        **{"sub/a": "new", "sub/b": "old", "sub/c": "new"},
    }
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "sub"]


@pytest.mark.parametrize("exists", [True, False])
def test_after_an_error_nothing_has_changed(tmp_path, exists):
    target = tmp_path / "target"
    if exists:
        target.mkdir()
        write(target, a="old")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="in the middle"), together(target) as folder:
        write_half(folder)
    assert contents(tmp_path) == before
    assert target.exists() == exists
    assert os.listdir(tmp_path) == (["target"] if exists else [])


def test_lines_can_be_copied_whatever_the_names_are(tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tell([("a", tmp_path / "here" / "x y.json"), ("file", Path("../other"))], [["rm", Path("x y.json"), "[b]\x1b"]])
    assert capsys.readouterr().out.splitlines() == [
        "a:    x y.json",
        f"file: {tmp_path / 'other'}",
        r"next: rm 'x y.json' '[b]\x1b'",
    ]
