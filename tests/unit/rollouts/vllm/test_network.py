"""Weights over the network: what servers are told, what is broadcast to them, and what happens when one is lost."""

import pytest
import torch

from caopd.errors import ConfigError
from caopd.rollouts import ServerOptions
from caopd.rollouts.vllm.base import Delivery
from caopd.rollouts.vllm.placement import Place


class Kept:
    """A group that keeps what is broadcast."""

    def __init__(self, *place):
        self.place, self.sent, self.is_left = place, [], False

    def broadcast(self, tensor, src, stream=None):
        assert (src, stream) == (0, None)
        self.sent.append(tensor)

    def destroy(self):
        self.is_left = True


@pytest.fixture
def groups(monkeypatch):
    """The groups that are opened, which keep what they are sent."""
    opened = []

    def open_group(*place):
        opened.append(Kept(*place))
        return opened[-1]

    monkeypatch.setattr("caopd.rollouts.vllm.network.open_group", open_group)
    return opened


OVER_THE_NETWORK = {"transfer": "nccl", "weights_address": "127.0.0.1"}
WEIGHTS = {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
NOT_IN_FILES = Delivery(None, {})
TRANSFER = ("/start_weight_update", "/update_weights", "/finish_weight_update")


def transfers(server):
    """What a server was told of weights that come over the network."""
    return [(path, body) for path, body in server.seen if path in TRANSFER]


def test_weights_over_the_network_are_announced_sent_and_then_used(make_server, policy, backend, groups):
    server = make_server()
    servers = backend(server, **OVER_THE_NETWORK)
    servers.start(policy, Place())
    assert servers.takes(policy) == "network"
    (met,) = [body["init_info"] for path, body in server.seen if path == "/init_weight_transfer_engine"]
    assert groups[0].place == ("127.0.0.1", met["master_port"], 2, policy.device)
    assert met == {"master_address": "127.0.0.1", "rank_offset": 1, "world_size": 2, "packed": False} | {
        "master_port": met["master_port"]
    }
    server.seen.clear()
    servers.receive(WEIGHTS.items())
    assert [each.data_ptr() for each in groups[0].sent] == [each.data_ptr() for each in WEIGHTS.values()]
    assert server.version == "-1"
    servers.load(policy, NOT_IN_FILES, 3)
    assert servers.version() == 3
    coming = {"names": ["a", "b"], "dtype_names": ["float32", "bfloat16"], "shapes": [[2, 3], [4]]}
    assert transfers(server) == list(zip(TRANSFER, [{}, {"update_info": coming}, {}], strict=True))
    assert "/reset_prefix_cache" in [path for path, _ in server.seen]
    servers.close()
    assert groups[0].is_left
    assert server.seen[-1][0] == "/shutdown_weight_transfer_engine"


def test_an_update_that_another_trainer_has_begun_is_ended_before_a_server_is_met(make_server, policy, backend, groups):
    server = make_server()
    backend(server, **OVER_THE_NETWORK).start(policy, Place())
    paths = [path for path, _ in server.seen if "weight" in path]
    assert paths == ["/finish_weight_update", "/shutdown_weight_transfer_engine", "/init_weight_transfer_engine"]


def test_a_server_that_is_lost_while_weights_come_is_left_out_and_meets_anew(make_server, policy, backend, groups):
    well, failing = make_server(), make_server()
    servers = backend(well, failing, **OVER_THE_NETWORK)
    servers.start(policy, Place())
    failing.failures[:] = [200, 500]  # it hears that weights come, and does not take them
    servers.receive(WEIGHTS.items())
    servers.load(policy, NOT_IN_FILES, 1)
    assert (well.version, failing.version) == ("1", "-1")
    servers.receive(WEIGHTS.items())
    servers.load(policy, NOT_IN_FILES, 2)
    assert (well.version, failing.version) == ("2", "2")
    assert len(groups) == 3


def test_where_no_group_opens_the_error_says_what_it_takes(make_server, policy, backend, monkeypatch):
    def refuse(*place):
        raise RuntimeError("no GPU")

    monkeypatch.setattr("caopd.rollouts.vllm.network.open_group", refuse)
    server = make_server()
    with pytest.raises(ConfigError, match=rf"vLLM server {server.url} to meet at 127.0.0.1:\d+, .*no GPU.* both sides"):
        backend(server, **OVER_THE_NETWORK).start(policy, Place())


@pytest.mark.parametrize("address", [None, "10.0.0.1:8900"])
def test_a_transfer_over_the_network_needs_this_machines_address(address):
    with pytest.raises(ConfigError, match=rf"`weights_address`.*without a port.*got {address!r}"):
        ServerOptions(["http://10.0.0.2:8000"], transfer="nccl", weights_address=address)


def test_a_machine_that_is_not_this_one_is_no_place_to_meet(make_server, policy, backend, groups):
    with pytest.raises(ConfigError, match=r"`weights_address`.* an address of this machine.*got '203.0.113.7'"):
        backend(make_server(), transfer="nccl", weights_address="203.0.113.7").start(policy, Place())
