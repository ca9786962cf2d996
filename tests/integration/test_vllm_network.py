"""Weights that a real vLLM server takes over the network, by vLLM's own transfer; a store stands in for NCCL."""

import copy

import pytest
import requests
import torch

from caopd.errors import RolloutError
from caopd.rollouts import RolloutRequest, Sampling, ServerOptions, VLLMEngine
from tests.needs import needs_vllm
from tests.vllm_servers import KEY, vllm_server

pytestmark = needs_vllm

SAMPLING = Sampling(temperature=1.0, max_new_tokens=8)
TAKES_FROM_A_STORE = (
    *("--worker-extension-cls", "tests.store_transfer.StoreKeeper"),
    *("--weight-transfer-config", '{"backend": "store"}'),
)


@pytest.fixture(scope="module")
def receiver(request):
    """The address of a server that takes weights over the network."""
    with vllm_server(TAKES_FROM_A_STORE, PYTHONPATH=str(request.config.rootpath)) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def connect(tokenizer, monkeypatch):
    """Gives engines whose weights travel over the network, or in files."""
    from tests.store_transfer import open_group

    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setattr("caopd.rollouts.vllm.network.open_group", open_group)
    engines = []

    def make(url, **settings):
        engine = VLLMEngine("server", servers=ServerOptions([url], retries=1, **settings))
        engine.start(tokenizer)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


OVER_THE_NETWORK = {"transfer": "nccl", "weights_address": "127.0.0.1"}


@pytest.fixture
def changed(policy):
    """A policy with other weights."""
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for index, weight in enumerate(other.parameters()):
            weight.mul_(1 + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)))
    return other


def drawn(engine, policy, version, prompt_ids):
    """Completions, their log-probabilities and their version, by the engine with the weights of a policy."""
    engine.sync(policy, version)
    requests = [RolloutRequest(prompt_ids, seed) for seed in range(4)]
    return [rollout for group in engine.generate(requests, 3, SAMPLING) for rollout in group]


def test_what_is_sampled_is_what_is_sampled_with_the_same_weights_from_files(
    receiver, connect, policy, changed, tokenizer
):
    prompt = tuple(tokenizer("What fits? ")["input_ids"])
    sent, read = connect(receiver, **OVER_THE_NETWORK), connect(receiver)
    over_network = [drawn(sent, each, version, prompt) for version, each in enumerate((policy, changed, policy), 5)]
    from_files = [drawn(read, each, version, prompt) for version, each in enumerate((policy, changed, policy), 5)]
    assert over_network == from_files
    assert [rollouts[0].policy_version for rollouts in over_network] == [5, 6, 7]
    assert [each.token_ids for each in over_network[0]] != [each.token_ids for each in over_network[1]]
    assert [each.token_ids for each in over_network[0]] == [each.token_ids for each in over_network[2]]


def test_another_trainer_can_connect_when_one_has_left(receiver, connect, changed, tokenizer):
    prompt = tuple(tokenizer("What fits? ")["input_ids"])
    first = connect(receiver, **OVER_THE_NETWORK)
    expected = drawn(first, changed, 1, prompt)
    first.close()
    assert drawn(connect(receiver, **OVER_THE_NETWORK), changed, 1, prompt) == expected


def test_a_server_that_takes_no_weights_so_is_an_error_that_says_how_it_is_started(server, connect, policy):
    engine = connect(f"http://127.0.0.1:{server[1]}", **OVER_THE_NETWORK)
    with pytest.raises(RolloutError, match=r"^Start the vLLM server \S+ with `--weight-transfer-config"):
        engine.sync(policy, 0)


def test_a_trainer_that_was_killed_in_the_middle_of_a_transfer_is_followed_by_another(
    receiver, connect, policy, changed, tokenizer
):
    prompt = tuple(tokenizer("What fits? ")["input_ids"])
    expected = drawn(connect(receiver, **OVER_THE_NETWORK), changed, 1, prompt)
    asked = requests.post(f"{receiver}/start_weight_update", headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    assert asked.ok  # and no weights follow
    second = connect(receiver, **OVER_THE_NETWORK)
    assert [each.token_ids for each in drawn(second, policy, 2, prompt)] != [each.token_ids for each in expected]
    assert drawn(second, changed, 1, prompt) == expected
