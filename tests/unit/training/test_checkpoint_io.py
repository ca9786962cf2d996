import os
import resource
import signal
import subprocess
import sys
import time

import fsspec
import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from caopd.training.checkpoint_io import AtomicCheckpointIO

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


SAVING = """
import sys
import torch
from caopd.training.checkpoint_io import AtomicCheckpointIO
for number in range(10**9):
    AtomicCheckpointIO().save_checkpoint({str(n): torch.full((20_000,), number) for n in range(40)}, sys.argv[1])
"""


def test_a_kill_in_the_middle_leaves_the_checkpoint_before_or_the_new_one(tmp_path):
    path, torn = tmp_path / "last.ckpt", 0
    for number in range(4):
        child = subprocess.Popen([sys.executable, "-c", SAVING, str(path)])
        before = path.stat().st_ino if path.exists() else None
        while not path.exists() or path.stat().st_ino == before:
            time.sleep(0.001)
        time.sleep(0.002 * number)
        child.send_signal(signal.SIGKILL)
        child.wait()
        tensors = torch.load(path).values()
        assert len(tensors) == 40
        assert len({tensor.unique().item() for tensor in tensors}) == 1
        torn += (tmp_path / "last.ckpt.part").exists()
    assert torn


FULL = """
import sys
import torch
from caopd.training.checkpoint_io import AtomicCheckpointIO
AtomicCheckpointIO().save_checkpoint({"weight": [torch.zeros(size) for size in map(int, sys.argv[2:])]}, sys.argv[1])
"""


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("sizes", [["200000"], ["20000"] * 5])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, sizes):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    arguments = [sys.executable, "-c", FULL, str(path), *sizes]
    run = subprocess.run(arguments, preexec_fn=limited, capture_output=True, text=True)
    assert run.stderr.splitlines()[-1].startswith(f"caopd.errors.DiskFullError: Expected room for {path}, but the file")
    assert torch.load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]
