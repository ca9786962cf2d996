import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from caopd.errors import DiskFullError
from caopd.files import disk_full, full_disks_told_once, remove_unfinished, write_text, written


def test_a_file_appears_when_all_of_it_is_there(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with written(path) as file:
        file.write(b"1")
        file.flush()
        assert os.listdir(path.parent) == ["file.part"]
        file.write(b"2")
    assert os.listdir(path.parent) == ["file"]
    assert path.read_bytes() == b"12"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def write_half(path):
    with written(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_leaves_what_was_there(tmp_path, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == ({} if before is None else {"file": before})


@pytest.mark.parametrize("text", ["Größe 東京 👍", "\ud800 \udce9", "\x00\x1b[31m\u2028"])
def test_a_json_file_gives_every_character_back(tmp_path, text):
    write_text(tmp_path / "file.json", json.dumps({text: text}, ensure_ascii=False))
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == {text: text}


def test_devices_and_links_are_written_to_and_not_replaced(tmp_path):
    write_text(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)


WRITING = """
import sys
from pathlib import Path
from caopd.files import written
path = Path(sys.argv[1])
for number in range(10**9):
    with written(path) as file:
        for _ in range(64):
            file.write(bytes([number % 256]) * 4096)
"""


def test_a_kill_in_the_middle_leaves_the_old_content_or_the_new(tmp_path):
    path, torn = tmp_path / "file", 0
    path.write_bytes(bytes(4096 * 64))
    for number in range(8):
        child = subprocess.Popen([sys.executable, "-c", WRITING, str(path)])
        before = path.stat().st_ino
        while path.stat().st_ino == before:  # it writes
            time.sleep(0.001)
        time.sleep(0.0007 * number)
        child.send_signal(signal.SIGKILL)
        child.wait()
        content = path.read_bytes()
        assert len(content) == 4096 * 64
        assert len(set(content)) == 1
        torn += (tmp_path / "file.part").exists()
        remove_unfinished(tmp_path)
        assert os.listdir(tmp_path) == ["file"]
    assert torn  # the kills came while a file was being written


def test_what_a_killed_process_was_writing_is_removed_from_a_run_and_nothing_else(tmp_path):
    for folder in ("", "checkpoints", "a/b"):
        (tmp_path / folder / "c.ckpt.part").mkdir(parents=True)
        (tmp_path / folder / "c.ckpt.part" / "shard").touch()
        (tmp_path / folder / "d.part").touch()
        (tmp_path / folder / "partial").touch()
    remove_unfinished(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"partial", "checkpoints/partial", "a/b/partial", "a/b/d.part", "a/b/c.ckpt.part/shard"}


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


FULL = """
import sys
from pathlib import Path
from caopd.errors import DiskFullError
from caopd.files import write_text
try:
    write_text(Path(sys.argv[1]), "x" * 20_000)
except DiskFullError as error:
    print(error, error.exit_status)
"""


def test_a_file_without_room_is_an_error_in_words_and_the_old_one_stays(tmp_path):
    """A limit of the size of files needs no rights and no file system of its own."""
    path = tmp_path / "file"
    path.write_text("old")
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], preexec_fn=limited, capture_output=True, text=True, check=True
    )
    assert f"Expected room for {path}, but the file would be larger" in run.stdout
    assert run.stdout.endswith(" 1\n")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"file": "old"}


@pytest.mark.parametrize(
    ("number", "said"), [(28, "no space left"), (122, "quota is used up"), (27, "would be larger"), (13, None)]
)
def test_what_is_full_is_said_of_the_error_behind_the_one_that_a_library_raises(number, said):
    error = RuntimeError("unexpected pos 704 vs 598")
    error.__context__ = OSError(number, "as the system says it")
    found = disk_full(error, "a.ckpt")
    if said is None:
        assert found is None
    else:
        assert isinstance(found, DiskFullError)
        assert "a.ckpt" in str(found)
        assert said in str(found)


def raising(error):
    raise error


@pytest.mark.parametrize(("error", "shown"), [(OSError(28, "No space left"), False), (OSError(13, "Denied"), True)])
def test_a_thread_that_meets_a_full_disk_prints_no_traceback(error, shown, capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # pytest has one of its own
    before = threading.excepthook
    with full_disks_told_once():
        thread = threading.Thread(target=raising, args=(error,))
        thread.start()
        thread.join()
    assert threading.excepthook is before
    assert ("Traceback" in capsys.readouterr().err) == shown
