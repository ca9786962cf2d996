"""What happens when servers fail; that real ones work is in the contract suite."""

import re
import time
from pathlib import Path

import pytest
import torch

from caopd.errors import ConfigError, EngineDiedError, RolloutError
from caopd.rollouts import RolloutRequest, Sampling, ServerOptions, VLLMEngine
from caopd.rollouts.vllm.base import Delivery
from caopd.rollouts.vllm.files import Written
from caopd.rollouts.vllm.placement import Place

EXPECTED = [[[number, index] for index in range(3)] for number in range(5)]
SENT = Delivery(Written(Path("/shared/weights"), 1), {})
REQUESTS = [RolloutRequest((number, 7), number) for number in range(5)]


def test_prompts_are_spread_and_answers_come_back_in_order(make_server, policy, backend):
    first, second = make_server(max_model_len=50), make_server()
    servers = backend(first, second)
    servers.start(policy, Place())
    assert servers.max_length == 50
    assert servers.dtype == torch.float32
    sampled = servers.sample(REQUESTS, 3, Sampling(), (2,))
    assert [[completion.token_ids for completion in group] for group in sampled] == EXPECTED
    assert sampled[0][2].logprobs == [-0.5, -2]
    assert sorted(drawn_by(first) + drawn_by(second)) == list(range(5))


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_server_is_asked_again(make_server, policy, status, backend):
    server = make_server(failures=[status, status])
    backend(server).start(policy, Place())
    assert [path for path, _ in server.seen] == ["/v1/models"] * 3 + ["/collective_rpc"]


def test_patience_has_an_end(make_server, policy, backend):
    server = make_server(failures=[503] * 9)
    with pytest.raises(RolloutError, match="503"):
        backend(server).start(policy, Place())
    assert len(server.seen) == 3


def test_a_server_that_is_not_there_is_named(policy, backend):
    expected = r"^Start the vLLM server http://127.0.0.1:9, or correct `servers.urls`: .* in 3 tries .*refused"
    with pytest.raises(RolloutError, match=expected):
        backend("http://127.0.0.1:9").start(policy, Place())


@pytest.mark.parametrize(
    ("failures", "complaint", "message"),
    [
        ([404], "Not Found", r"^Start the vLLM server http://\S+ with VLLM_SERVER_DEV_MODE=1"),
        (
            [500],
            "Worker failed with error ''GPUWorker' object has no attribute 'describe_model''",
            r"^Start the vLLM server http://\S+ with `--worker-extension-cls caopd.vllm_host.keeper.WeightKeeper`",
        ),
        ([500], "broken", r"^Look into the log of the vLLM server http://\S+. It answered \S+ with 500: broken"),
    ],
)
def test_a_server_that_takes_no_weights_is_found_at_the_start(
    make_server, policy, backend, failures, complaint, message
):
    server = make_server(failures=[200, *failures])
    server.complaint = complaint
    with pytest.raises(RolloutError, match=message):
        backend(server).start(policy, Place())


def test_a_server_that_does_not_answer_in_time_is_asked_once(make_server, policy, backend):
    well, stuck = make_server(), make_server()
    stuck.wait.clear()
    begin = time.monotonic()
    with pytest.raises(RolloutError, match=rf"^Restart the vLLM server {stuck.url}, or raise `start_seconds`.* 0.5 s"):
        backend(well, stuck, start_seconds=0.5).start(policy, Place())
    assert time.monotonic() - begin < 5
    assert len(stuck.seen) == 1


def drawn_by(server):
    """The prompts that a server was asked to complete."""
    return [body["prompt"][0] for path, body in server.seen if path == "/v1/completions"]


def drawn(servers):
    return [[each.token_ids for each in group] for group in servers.sample(REQUESTS, 3, Sampling(), (2,))]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"silence_seconds": 0.5}, r"has not said for 0.5 s that it lives"),
        ({"timeout_seconds": 0.5}, r"did not answer /v1/completions within 0.5 s"),
    ],
    ids=["silent", "late"],
)
def test_the_prompts_of_a_server_that_gets_stuck_are_drawn_by_another(
    make_server, policy, backend, caplog, settings, why
):
    """It is a server that works on prompts, and it is used again when it answers and there are new weights."""
    well, stuck = make_server(), make_server()
    servers = backend(well, stuck, concurrency=2, **settings)
    servers.start(policy, Place())
    stuck.wait.clear()
    well.delay = 0.1  # so that both are given some
    assert drawn(servers) == EXPECTED
    assert drawn_by(stuck)
    assert set(drawn_by(well)) == set(range(5))
    assert re.search(rf"vLLM server {stuck.url} is left out.* {why}", caplog.text)
    num_asked = len(drawn_by(stuck))
    assert drawn(servers) == EXPECTED
    assert servers.version() == -1
    assert len(drawn_by(stuck)) == num_asked
    stuck.wait.set()
    servers.load(policy, SENT, 4)
    assert f"{stuck.url} answers again" in caplog.text
    assert (well.version, stuck.version) == ("4", "4")
    assert drawn(servers) == EXPECTED


@pytest.mark.parametrize("failures", [[500], [503] * 9])
def test_the_prompts_of_a_server_that_fails_are_drawn_by_another(make_server, policy, backend, failures):
    well, failing = make_server(), make_server()
    servers = backend(well, failing)
    servers.start(policy, Place())
    failing.failures = failures
    well.delay = 0.1
    assert drawn(servers) == EXPECTED


def test_where_no_server_is_left_all_are_named(make_server, policy, backend):
    first, second = make_server(), make_server()
    servers = backend(first, second, silence_seconds=0.5)
    servers.start(policy, Place())
    first.wait.clear()
    second.wait.clear()
    with pytest.raises(RolloutError, match=r"^Restart the vLLM server \S+, or raise `silence_seconds`") as caught:
        servers.sample(REQUESTS, 3, Sampling(), (2,))
    assert all(server.url in str(caught.value) for server in (first, second))


def test_what_a_server_refuses_is_not_asked_of_another(make_server, policy, backend):
    first, second = make_server(), make_server()
    servers = backend(first, second)
    servers.start(policy, Place())
    first.failures = second.failures = [400] * 5
    first.complaint = second.complaint = "prompt too long"
    with pytest.raises(RolloutError, match="400: prompt too long"):
        servers.sample(REQUESTS, 3, Sampling(), (2,))


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, r"`architectures` \['Qwen3ForCausalLM'\] in place of"),
        ({"hidden_size": 4096}, r"`hidden_size` 4096 in place of"),
    ],
)
def test_a_server_of_another_model_is_refused_by_name(make_server, policy, backend, shapes, found):
    server = make_server()
    server.shapes = shapes
    with pytest.raises(ConfigError, match=rf"vLLM server {server.url} .* that of 'model' has {found}"):
        backend(server).start(policy, Place())


def test_every_request_carries_the_key(make_server, policy, backend, monkeypatch, tmp_path):
    """Also where the user's ~/.netrc holds a password for the machine."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("THE_KEY", "sesame")
    server = make_server()
    servers = backend(server, api_key_variable="THE_KEY")
    servers.start(policy, Place())
    servers.load(policy, SENT, 4)
    servers.sample(REQUESTS, 3, Sampling(), (2,))
    assert len(server.keys) > 5
    assert set(server.keys) == {"Bearer sesame"}


@pytest.mark.parametrize(("key", "held"), [("", "it is empty"), ("wrong-key", "is refused")])
def test_a_refused_key_is_asked_for_and_not_shown(make_server, policy, backend, monkeypatch, key, held):
    monkeypatch.setenv("VLLM_API_KEY", key)
    server = make_server(failures=[401])
    with pytest.raises(RolloutError, match=rf"^Put the API key of the vLLM server .*`VLLM_API_KEY`.*{held}") as caught:
        backend(server).start(policy, Place())
    assert "wrong-key" not in str(caught.value)
    assert server.keys == [f"Bearer {key}" if key else None]


@pytest.mark.parametrize("key", ["two words", "broken\nline", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(backend, monkeypatch, key):
    monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises(ConfigError, match="`VLLM_API_KEY` to be printable ASCII") as caught:
        backend("http://127.0.0.1:9")
    assert key not in str(caught.value)


def test_a_folder_for_weights_that_is_not_there_is_found_at_the_start(make_server, policy, backend, tmp_path):
    with pytest.raises(ConfigError, match=r"`weights_directory`.*write into.*nowhere"):
        backend(make_server(), weights_directory=str(tmp_path / "nowhere")).start(policy, Place())


def test_weights_that_are_sent_need_no_folder(make_server, policy, backend, tmp_path):
    there = {"weights_directory": str(tmp_path / "nowhere"), "weights_address": "127.0.0.1"}
    servers = backend(make_server(), **there)
    servers.start(policy, Place())
    assert servers.folder(policy) != there["weights_directory"]


def test_a_cache_that_stays_is_an_error(make_server, policy, backend):
    server = make_server()
    server.forgets = False
    with pytest.raises(RolloutError, match="prefix cache"):
        backend(server).load(policy, SENT, 4)


def test_weights_are_written_once_and_removed(make_server, policy, tokenizer, tmp_path):
    first, second = make_server(), make_server()
    options = ServerOptions([first.url, second.url], weights_directory=str(tmp_path))
    engine = VLLMEngine(mode="server", servers=options)
    engine.start(tokenizer)
    engine.sync(policy, 4)
    engine.close()
    paths = {body["args"][0] for s in (first, second) for _, body in s.seen if body.get("method") == "take_policy"}
    assert len(paths) == 1
    assert not list(tmp_path.iterdir())
    assert (first.version, second.version) == ("4", "4")


def test_a_restarted_server_gets_the_weights_again(make_server, policy, tokenizer, tmp_path):
    server = make_server()
    options = ServerOptions([server.url], weights_directory=str(tmp_path), backoff_seconds=0.0)
    engine = VLLMEngine(mode="server", servers=options)
    engine.start(tokenizer)
    engine.sync(policy, 6)
    engine.generate([RolloutRequest((5, 6), 0)], 2, Sampling(max_new_tokens=4))
    server.version = "-1"
    groups = engine.generate([RolloutRequest((5, 6), 0)], 2, Sampling(max_new_tokens=4))
    engine.close()
    assert [rollout.policy_version for rollout in groups[0]] == [6, 6]
    assert [body["method"] for path, body in server.seen if path == "/collective_rpc"].count("take_policy") == 2


def test_servers_that_hold_different_policies_are_noticed(make_server, backend):
    first, second = make_server(), make_server()
    first.version, second.version = "3", "4"
    with pytest.raises(EngineDiedError, match="different policies"):
        backend(first, second).version()
