"""Folders that their owner's end gives free, tried with owners that are killed."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from caopd.vllm_host import folders
from caopd.vllm_host.folders import OwnedFolder, clear_dead

OWNER = """
import sys, time
from caopd.vllm_host.folders import OwnedFolder
folder = OwnedFolder(sys.argv[1], "weights")
(folder.path / "00000.safetensors").write_bytes(b"weights")
print(folder.path, flush=True)
time.sleep(100)
"""
BOTH = """
import sys
from caopd.vllm_host.folders import OwnedFolder, clear_dead
for _ in range(200):
    clear_dead(sys.argv[1])
    folder = OwnedFolder(sys.argv[1], "weights")
    (folder.path / "file").write_text("mine")
    assert (folder.path / "file").read_text() == "mine"
    folder.remove()
"""


@pytest.fixture
def start_owner(tmp_path):
    """Starts processes that own a folder; gives the process and the folder."""
    owners = []

    def start():
        owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True)
        owners.append(owner)
        return owner, Path(owner.stdout.readline().strip())

    yield start
    for owner in owners:
        owner.kill()
        owner.wait()
        owner.stdout.close()


@pytest.fixture
def umask():
    before = os.umask(0)
    yield os.umask
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_goes_with_its_owner_and_not_before(start_owner, tmp_path):
    killed, left = start_owner()
    _, kept = start_owner()
    mine = OwnedFolder(str(tmp_path), "vllm")
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    assert (left / "00000.safetensors").exists()
    assert clear_dead(str(tmp_path)) == 2
    assert not left.exists()
    assert (kept / "00000.safetensors").exists()
    assert mine.path.exists()
    mine.remove()
    assert set(tmp_path.iterdir()) == {kept}


def test_a_stopped_owner_lives(start_owner, tmp_path):
    owner, folder = start_owner()
    owner.send_signal(signal.SIGSTOP)
    clear_dead(str(tmp_path))
    assert folder.exists()


def test_an_owner_that_died_before_it_locked_its_folder_leaves_it_to_others(start_owner, tmp_path):
    owner, folder = start_owner()
    owner.kill()
    owner.wait(10)
    (folder / "owner.lock").unlink()
    clear_dead(str(tmp_path))
    assert not folder.exists()


def test_folders_of_others_stay(tmp_path, monkeypatch):
    """Those of another machine that shares the file system and of another user, and what a link points to."""
    mine = OwnedFolder(str(tmp_path), "weights").path
    target = tmp_path / "precious"
    target.mkdir()
    prefix = mine.name[: mine.name.index("_") + 1]
    (tmp_path / f"{prefix}weights-link").symlink_to(target)
    other_machine = tmp_path / "caopd-elsewhere_weights-abc"
    longer_name = tmp_path / f"{prefix.removesuffix('_')}-2_weights-abc"
    for folder in (other_machine, longer_name):
        folder.mkdir()
    clear_dead(str(tmp_path))
    assert target.exists()
    assert other_machine.exists()
    assert longer_name.exists()
    another_users = tmp_path / f"{prefix}weights-theirs"
    another_users.mkdir()
    monkeypatch.setattr(folders.os, "geteuid", lambda: another_users.stat().st_uid + 1)
    clear_dead(str(tmp_path))
    assert another_users.exists()
    monkeypatch.undo()
    clear_dead(str(tmp_path))
    assert not another_users.exists()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_only_this_user_reads_a_folder_whatever_the_umask(tmp_path, umask, mask):
    umask(mask)
    folder = OwnedFolder(str(tmp_path), "weights")
    file = folder.path / "weights"
    file.write_bytes(b"weights")
    folder.protect(file)
    assert mode_of(folder.path) == 0o700
    assert mode_of(file) == 0o600
    folder.remove()


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_a_folder_that_passes_its_group_on_lets_that_group_read(tmp_path, umask, mask):
    tmp_path.chmod(0o2770)
    umask(mask)
    folder = OwnedFolder(str(tmp_path), "weights")
    file = folder.path / "weights"
    file.write_bytes(b"weights")
    folder.protect(file)
    assert mode_of(folder.path) == 0o2750
    assert mode_of(file) == 0o640
    assert file.stat().st_gid == tmp_path.stat().st_gid
    folder.remove()


def test_runs_that_start_at_once_take_no_folder_from_each_other(tmp_path):
    runs = [subprocess.Popen([sys.executable, "-c", BOTH, tmp_path]) for _ in range(3)]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    assert not list(tmp_path.iterdir())
