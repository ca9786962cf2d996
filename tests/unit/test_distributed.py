"""The collective operations of rollouts, between two processes."""

import re

import pytest
import torch.multiprocessing as mp
from torch import distributed

from caopd.distributed import close_group, gather_in_order, num_processes, on_first_process, process_number, together
from caopd.errors import CaopdError, DataError, EngineDiedError


def open_and_close(rank):
    said = gather_in_order([f"{process_number()} of {num_processes()}"])
    close_group()
    close_group()  # nothing is left to close
    said += gather_in_order([rank, rank])  # in a group of its own, again
    return said + on_first_process(lambda: ["alone"])


def raised(function):
    try:
        return function()
    except (CaopdError, OSError, ValueError) as error:
        return re.sub(r"\(pid \d+ on [^)]+\)", "(pid ...)", f"{type(error).__name__}: {error}")


def fail(error):
    raise error


def fail_in_turn(rank):
    """What each of two processes meets where one of them fails, each time alone; after it all goes on."""

    def before_an_operation():
        if rank == 1:
            raise ValueError("no 2nd half")
        return gather_in_order([rank])

    def between_two():
        gather_in_order([rank])
        if rank == 1:
            raise DataError("row 7")
        return on_first_process(lambda: "never")

    def wrapped():
        try:
            return before_an_operation()
        except ValueError as error:
            raise DataError("the same, in other words") from error

    functions = [
        lambda: fail(ValueError("after all")) if rank == 0 else "done",
        before_an_operation,
        between_two,
        lambda: together(between_two),
        lambda: together(lambda: [gather_in_order(["first"]), together(before_an_operation)]),
        wrapped,
        lambda: fail(DataError(f"found by {rank}")),
    ]
    each = [raised(lambda function=function: together(function)) for function in functions]
    each.append(raised(lambda: on_first_process(lambda: fail(EngineDiedError("gone")))))
    each.append(raised(lambda: together(lambda: on_first_process(lambda: fail(OSError("no space left"))))))
    return [*each, *gather_in_order([rank])]


def work(rank, function, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    (folder / f"{rank}.txt").write_text("\n".join(map(str, function(rank))))
    close_group()
    distributed.destroy_process_group()


@pytest.fixture
def in_two_processes(tmp_path):
    def run(function):
        mp.start_processes(work, args=(function, tmp_path), nprocs=2, start_method="fork")
        return [(tmp_path / f"{rank}.txt").read_text().split("\n") for rank in range(2)]

    return run


def test_a_group_that_was_closed_is_opened_again(in_two_processes):
    expected = ["0 of 2", "1 of 2", "0", "0", "1", "1", "alone"]
    assert in_two_processes(open_and_close) == [expected, expected]


def test_an_error_of_one_process_is_one_in_both(in_two_processes):
    first, second = in_two_processes(fail_in_turn)
    stopped = "PeerError: Stopped, since process {} of 2 (pid ...) failed: {}"
    assert list(zip(first, second, strict=True)) == [
        ("ValueError: after all", stopped.format(0, "ValueError: after all")),
        (stopped.format(1, "ValueError: no 2nd half"), "ValueError: no 2nd half"),
        (stopped.format(1, "row 7"), "DataError: row 7"),
        (stopped.format(1, "row 7"), "DataError: row 7"),
        (stopped.format(1, "ValueError: no 2nd half"), "ValueError: no 2nd half"),
        (stopped.format(1, "the same, in other words"), "DataError: the same, in other words"),
        ("DataError: found by 0", "DataError: found by 1"),
        ("EngineDiedError: gone", "EngineDiedError: gone"),
        ("OSError: no space left", stopped.format(0, "OSError: no space left")),
        ("0", "0"),
        ("1", "1"),
    ]


def test_one_process_needs_no_group():
    assert gather_in_order([1, 2]) == [1, 2]
    assert on_first_process(lambda: "here") == "here"
    assert together(lambda: "here") == "here"
    with pytest.raises(ValueError, match="as it is"):
        together(lambda: fail(ValueError("as it is")))
    assert (process_number(), num_processes()) == (0, 1)
    close_group()
