"""One file of what several processes share, as torch would have written it."""

import resource
import signal
import zipfile

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from caopd.distributed import close_group, gather_in_order
from caopd.errors import DiskFullError, PeerError
from caopd.training.whole import write_whole

NUMBER = 3


def plain():
    """Rows that three processes share evenly, unevenly, and that some have none of; a weight with two names."""
    torch.manual_seed(0)
    tied = torch.randn(6, 2)
    weights = {
        "even": torch.randn(9, 4),
        "embedding": tied,
        "head": tied,
        "few": torch.randn(2, 3),
        "one": torch.ones(1),
    }
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(7, dtype=torch.bfloat16)}}
    return {"state_dict": weights, "optimizer_states": [{"state": moments}], "loops": {"epoch": 2}}


def sharded(content):
    mesh, made = init_device_mesh("cpu", (NUMBER,)), {}

    def share(tensor):
        return made.setdefault(id(tensor), distribute_tensor(tensor, mesh, [Shard(0)])) if tensor.dim() else tensor

    return torch.utils._pytree.tree_map_only(torch.Tensor, share, content)


def work(rank, function, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=NUMBER)
    function(sharded(plain()), folder)
    close_group()
    distributed.destroy_process_group()


def in_processes(function, folder):
    mp.start_processes(work, args=(function, folder), nprocs=NUMBER, start_method="fork")


def test_the_file_is_what_torch_would_have_written(tmp_path):
    in_processes(lambda content, folder: write_whole(content, folder / "whole.ckpt"), tmp_path)
    found, expected = torch.load(tmp_path / "whole.ckpt", weights_only=True), plain()
    assert found["loops"] == {"epoch": 2}
    for name, weight in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], weight), name
    assert found["state_dict"]["head"].data_ptr() == found["state_dict"]["embedding"].data_ptr()
    (moments,) = (each["state"][0] for each in found["optimizer_states"])
    assert torch.equal(moments["exp_avg"], expected["optimizer_states"][0]["state"][0]["exp_avg"])
    assert moments["step"] == 3
    torch.save(expected, tmp_path / "torch.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as mine, zipfile.ZipFile(tmp_path / "torch.ckpt") as torchs:
        assert mine.testzip() is None
        assert [each.file_size for each in mine.infolist()[1:]] == [each.file_size for each in torchs.infolist()[1:]]
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_an_error_in_all_and_nobody_waits(tmp_path):
    (tmp_path / "whole.ckpt").write_text("the one before")

    def write(content, folder):
        gather_in_order([])  # opens the group, for which a file is written
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if distributed.get_rank() == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
        with pytest.raises(
            DiskFullError if distributed.get_rank() == 0 else PeerError, match=r"room for .*whole\.ckpt"
        ):
            write_whole(content, folder / "whole.ckpt")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert gather_in_order([distributed.get_rank()]) == [0, 1, 2]

    in_processes(write, tmp_path)
    assert (tmp_path / "whole.ckpt").read_text() == "the one before"
