import os

import pytest
import torch

from caopd.rollouts.vllm.placement import Place, Placement

HOSTS = ("a", "a", "a", "a", "b", "b", "b")


def placement(mine, size=1, hosts=HOSTS):
    """As `of_run` makes it, of processes on these machines."""
    return Placement.of(hosts, size, mine)


def test_every_process_has_a_vllm_of_its_own():
    found = [placement(mine) for mine in range(7)]
    assert all(each.holds and not each.is_shared for each in found)
    assert [tuple(each.place) for each in found] == [(0, 4), (1, 4), (2, 4), (3, 4), (0, 3), (1, 3), (2, 3)]


def test_processes_whose_gpus_share_a_model_share_a_vllm_of_one_machine():
    found = [placement(mine, 2) for mine in range(7)]
    assert found[0].groups == ((0, 1), (2, 3), (4, 5), (6,))
    assert [each.holds for each in found] == [True, False, True, False, True, False, True]
    assert [tuple(found[holder].place) for holder in (0, 2, 4, 6)] == [(0, 2), (1, 2), (0, 2), (1, 2)]


def test_one_vllm_for_all_is_that_of_process_0():
    assert [mine for mine in range(7) if placement(mine, None).holds] == [0]
    assert placement(3, None).groups == (tuple(range(7)),)


@pytest.mark.parametrize("size", [1, 2, 3, 4, None])
@pytest.mark.parametrize("counts", [(3, 0, 2, 1, 4, 0, 5), (1,) * 7, (0,) * 7])
def test_every_process_gets_what_was_made_of_its_own_items(size, counts):
    shares = [[(mine, item) for item in range(count)] for mine, count in enumerate(counts)]
    all_of_them = [placement(mine, size) for mine in range(7)]
    made = [[f"{i}" for i in each.of_group(shares)] if each.holds else [] for each in all_of_them]
    for each, share in zip(all_of_them, shares, strict=True):
        assert each.handed_back(made, shares) == [f"{item}" for item in share]
    assert sum(map(len, made)) == sum(counts)


def test_the_first_of_each_machine_that_wants_files_writes_them():
    chosen = [False, True, True, False, False, False, True]
    assert [mine for mine in range(7) if placement(mine).is_first_here(chosen)] == [1, 6]
    assert [placement(mine).here("ABCDEFG") for mine in (0, 5)] == [list("ABCD"), list("EFG")]


@pytest.mark.parametrize("total", [1, 2, 3])
def test_vllms_of_one_cpu_take_different_cores(total):
    shares = [Place(number, total).cores().split(",") for number in range(total)]
    mine = sorted(map(str, os.sched_getaffinity(0)))
    assert all(shares)
    taken = sorted(core for share in shares for core in share)
    assert set(taken) <= set(mine)
    if total <= len(mine):
        assert len(set(taken)) == len(taken)


def test_a_vllm_sees_the_gpus_from_its_process_on(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,GPU-7f3a,6")
    assert Place().gpus(0, 1) == "3"
    assert Place().gpus(1, 2) == "5,GPU-7f3a"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert Place().gpus(4, 4) == "4,5,6,7"
