import os
import resource
import time
from multiprocessing import get_context

import fsspec
import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from caopd.errors import DiskFullError
from caopd.training.checkpoint_io import AtomicCheckpointIO

FORK = get_context("fork")
CHECKPOINT = {"state_dict": {"weight": torch.arange(50_000.0)}, "loops": {"steps": 3}}


def test_the_file_is_lightnings_own_to_the_byte(tmp_path):
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, str(tmp_path / "new" / "ours.ckpt"))
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, f"file://{tmp_path}/url.ckpt")
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, str(tmp_path / "theirs.ckpt"))
    theirs = (tmp_path / "theirs.ckpt").read_bytes()
    assert (tmp_path / "new" / "ours.ckpt").read_bytes() == theirs
    assert (tmp_path / "url.ckpt").read_bytes() == theirs
    assert {path.name for path in tmp_path.rglob("*")} == {"new", "ours.ckpt", "theirs.ckpt", "url.ckpt"}


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    """`save_last: link` of a run before, and `save_last: true` of this one."""
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "step1.ckpt")
    (tmp_path / "last.ckpt").symlink_to("step1.ckpt")
    AtomicCheckpointIO().save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "step1.ckpt") == {"step": 1}
    assert torch.load(tmp_path / "last.ckpt") == {"step": 2}


def test_remote_paths_go_lightnings_own_way():
    AtomicCheckpointIO().save_checkpoint({"step": 1}, "memory://run/step1.ckpt")
    with fsspec.open("memory://run/step1.ckpt", "rb") as file:
        assert torch.load(file) == {"step": 1}
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint({}, "memory://run/step2.ckpt", storage_options={})


def save_for_ever(path):
    for number in range(10**9):
        tensors = {str(each): torch.full((20_000,), number) for each in range(40)}
        AtomicCheckpointIO().save_checkpoint(tensors, path)


def test_a_kill_in_the_middle_leaves_the_checkpoint_before_or_the_new_one(tmp_path):
    path, part, torn = tmp_path / "last.ckpt", tmp_path / "last.ckpt.part", 0
    for number in range(8):
        child = FORK.Process(target=save_for_ever, args=(path,))
        child.start()
        before = path.stat().st_ino if path.exists() else None
        while not path.exists() or path.stat().st_ino == before or not part.exists():  # it writes
            time.sleep(0.0005)
        time.sleep(0.0005 * number)
        child.kill()
        child.join()
        tensors = torch.load(path).values()
        assert len(tensors) == 40
        assert len({tensor.unique().item() for tensor in tensors}) == 1
        torn += part.exists()
    assert torn  # some kills came while a file was being written


def save_without_room(path, sizes, messages):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        AtomicCheckpointIO().save_checkpoint({"weight": [torch.zeros(size) for size in sizes]}, path)
    except DiskFullError as error:
        messages.put(str(error))


@pytest.mark.parametrize("sizes", [[200_000], [20_000] * 5])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, sizes):
    """A limit of the size of files needs no rights and no file system of its own."""
    path, messages = tmp_path / "last.ckpt", FORK.Queue()
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    child = FORK.Process(target=save_without_room, args=(path, sizes, messages))
    child.start()
    assert messages.get(timeout=60).startswith(f"Expected room for {path}, but the file would be larger")
    child.join()
    assert torch.load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]
