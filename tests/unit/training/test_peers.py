"""What processes hear of each other over their own sockets: three processes without a trainer."""

import json
import os
import selectors
import socket
import time

import pytest
import torch.multiprocessing as mp
from torch import distributed

from caopd.distributed import close_group, on_first_process, together
from caopd.errors import ConfigError
from caopd.training.door import Address, Door
from caopd.training.peers import PeerLine


def connected(timeout_seconds):
    line = PeerLine(timeout_seconds, lambda: None)
    address = on_first_process(lambda: line.listen(None))
    together(lambda: None if distributed.get_rank() == 0 else line.connect(address))
    line.start()
    return line


def fail_alike(rank, note):
    line = connected(60)
    together(lambda: None)
    note(line.fail("error", "round 1"))
    note(line.fail("another one, later", "round 2"))  # a script may catch the first
    line.leave()


def fail_at_two_points(rank, note):
    line = connected(4)
    note(line.fail("error", f"round {min(rank, 1)}"), line.is_alone)
    together(lambda: None)
    line.close()
    note("not reached")


def fail_alone(rank, note):
    line = connected(4)
    if rank == 1:
        note(line.fail("its own error", "round 1"), line.is_alone)
        line.close()
        note("not reached")
    time.sleep(60)  # as in an operation that the others have left


def end_in_turn(rank, note):
    """Nobody is missed who is done, however long the others go on."""
    line = connected(1)
    for _ in range(3 * rank):
        time.sleep(1)
    line.close()
    note("done")


def work(rank, function, folder):
    with (folder / f"{rank}.txt").open("w", buffering=1) as notes:
        os.dup2(notes.fileno(), 2)
        distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
        function(rank, lambda *values: notes.write(f"{' '.join(map(str, values))}\n"))
        close_group()
        distributed.destroy_process_group()


@pytest.fixture
def in_three_processes(tmp_path):
    def run(function):
        context = mp.start_processes(work, args=(function, tmp_path), nprocs=3, start_method="fork", join=False)
        for process in context.processes:
            process.join(40)
        return [
            (process.exitcode, (tmp_path / f"{rank}.txt").read_text()) for rank, process in enumerate(context.processes)
        ]

    return run


def test_all_that_fail_at_the_same_point_go_on_together(in_three_processes):
    assert in_three_processes(fail_alike) == [(0, "True\nTrue\n")] * 3


def test_none_goes_on_where_one_has_failed_elsewhere(in_three_processes):
    assert in_three_processes(fail_at_two_points) == [(1, "False True\n")] * 3


def test_one_that_fails_alone_ends_all_and_is_named(in_three_processes):
    first, alone, third = in_three_processes(fail_alone)
    assert alone == (1, "False True\n")
    assert first[0] == third[0] == 1
    for said in (first[1], third[1]):
        assert said.startswith("error: Stopped, since process 1 of 3 (pid ")
        assert " failed: its own error. The last checkpoint is as it was" in said


def test_processes_that_are_done_are_not_missed(in_three_processes):
    assert in_three_processes(end_in_turn) == [(0, "done\n")] * 3


@pytest.fixture
def door():
    with selectors.DefaultSelector() as selector:
        yield Door(None, [1, 2], selector), selector


def guests(door, selector):
    """Whom the door lets in until nobody knocks any more."""
    found = []
    while ready := selector.select(0.2):
        found += [guest for key, _ in ready if door.owns(key.fileobj) and (guest := door.open(key.fileobj))]
    return found


def is_sent_away(connection):
    connection.settimeout(1.0)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_the_door_opens_for_the_processes_of_the_run_alone(door):
    door, selector = door
    host, port, secret = door.address
    assert host == "127.0.0.1"
    strangers = [socket.create_connection((host, port)) for _ in range(6)]
    for stranger, said in zip(
        strangers,
        [b"\n", b"GET / HTTP/1.1\n", f"{secret} 7\n".encode(), b"x" * 4000, b"", b"[" * 900 + b"\n"],
        strict=True,
    ):
        stranger.sendall(said)
    first = door.address.connect(1, 1.0)
    first.sendall(b"and more")
    again = door.address.connect(1, 1.0)
    (guest,) = guests(door, selector)
    assert (guest.number, guest.said) == (1, b"and more")
    assert all(map(is_sent_away, [again, *strangers[:4], strangers[5]]))
    second = door.address.connect(2, 1.0)
    assert [guest.number for guest in guests(door, selector)] == [2]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, port))
    for each in (*strangers, first, again, second, guest.connection):
        each.close()


def test_a_process_that_cannot_connect_says_where_it_tried():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConfigError, match=f"reached at 127.0.0.1, port {port}, but .*refused"):
        PeerLine(1.0, lambda: None).connect(Address("127.0.0.1", port, json.dumps("secret")))
