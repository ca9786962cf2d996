"""The collective operations of rollouts, between two processes."""

import torch.multiprocessing as mp
from torch import distributed

from caopd.distributed import close_group, gather_in_order, num_processes, on_first_process, process_number


def work(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    said = gather_in_order([f"{process_number()} of {num_processes()}"])
    close_group()
    close_group()  # nothing is left to close
    said += gather_in_order([rank, rank])  # in a group of its own, again
    said += on_first_process(lambda: ["alone"])
    close_group()
    distributed.destroy_process_group()
    (folder / f"{rank}.txt").write_text(str(said))


def test_a_group_that_was_closed_is_opened_again(tmp_path):
    mp.start_processes(work, args=(tmp_path,), nprocs=2, start_method="fork")
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text() == "['0 of 2', '1 of 2', 0, 0, 1, 1, 'alone']"


def test_one_process_needs_no_group():
    assert gather_in_order([1, 2]) == [1, 2]
    assert on_first_process(lambda: "here") == "here"
    assert (process_number(), num_processes()) == (0, 1)
    close_group()
