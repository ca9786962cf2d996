"""What happens when servers fail; that real ones work is in the contract suite."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from caopd.errors import EngineDiedError, RolloutError
from caopd.rollouts import RolloutRequest, Sampling, ServerOptions, VLLMEngine, VLLMOptions
from caopd.rollouts.vllm.server import VLLMServers


class Answers(BaseHTTPRequestHandler):
    """Answers as vLLM does, after as many failures as its server still owes."""

    def respond(self):
        server = self.server
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length) or "{}")
        server.seen.append((self.path, body))
        status = server.failures.pop(0) if server.failures else 200
        payload = json.dumps(self.answer(body)).encode() if status == 200 else b"busy"
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = respond

    def answer(self, body):
        if self.path == "/v1/models":
            return {"data": [{"id": "model", "max_model_len": self.server.max_model_len}]}
        if self.path == "/collective_rpc":
            held = self.server.version if body["method"] == "policy_version" else body["args"][0]
            if body["method"] == "stamp_policy":
                self.server.version = held
            return {"results": [held]}
        if self.path == "/reset_prefix_cache":
            return {"success": self.server.forgets}
        first = body["prompt"][0]
        choices = [
            {"index": index, "token_ids": [first, index], "logprobs": {"token_logprobs": [-0.5, -index]}}
            for index in range(body["n"])
        ]
        return {"choices": choices[::-1]}

    def log_message(self, *arguments):
        pass


@pytest.fixture
def make_server():
    servers = []

    def make(failures=(), max_model_len=100):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.failures, server.max_model_len = list(failures), max_model_len
        server.seen, server.version, server.forgets = [], "-1", True
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def backend(*servers, retries=2):
    options = ServerOptions([server.url for server in servers], retries=retries, backoff_seconds=0.0)
    return VLLMServers(options, VLLMOptions())


REQUESTS = [RolloutRequest((number, 7), number) for number in range(5)]


def test_prompts_are_spread_and_answers_come_back_in_order(make_server, policy):
    first, second = make_server(max_model_len=50), make_server()
    servers = backend(first, second)
    servers.start(policy)
    assert servers.max_length == 50
    assert servers.dtype == torch.float32
    sampled = servers.sample(REQUESTS, 3, Sampling(), (2,))
    assert [[completion.token_ids for completion in group] for group in sampled] == [
        [[number, index] for index in range(3)] for number in range(5)
    ]
    assert sampled[0][2].logprobs == [-0.5, -2]
    prompts = [[body["prompt"][0] for path, body in s.seen if path == "/v1/completions"] for s in (first, second)]
    assert [sorted(numbers) for numbers in prompts] == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_server_is_asked_again(make_server, policy, status):
    server = make_server(failures=[status, status])
    backend(server).start(policy)
    assert len(server.seen) == 3


def test_patience_has_an_end(make_server, policy):
    server = make_server(failures=[503] * 9)
    with pytest.raises(RolloutError, match="503"):
        backend(server).start(policy)
    assert len(server.seen) == 3


def test_a_server_that_is_not_there_is_named(policy):
    options = ServerOptions(["http://127.0.0.1:9"], retries=1, backoff_seconds=0.0)
    with pytest.raises(RolloutError, match=r"http://127.0.0.1:9/v1/models.*after 1 retries.*urls"):
        VLLMServers(options, VLLMOptions()).start(policy)


def test_a_server_without_its_development_mode_says_so(make_server, policy):
    server = make_server(failures=[200, 404])
    servers = backend(server)
    server.failures = [404]
    with pytest.raises(RolloutError, match=r"404.*VLLM_SERVER_DEV_MODE"):
        servers.version()


def test_a_cache_that_stays_is_an_error(make_server, policy):
    server = make_server()
    server.forgets = False
    with pytest.raises(RolloutError, match="prefix cache"):
        backend(server).load(policy, iter([("weight", torch.ones(2))]), 4)


def test_weights_are_written_once_and_removed(make_server, policy, tmp_path):
    first, second = make_server(), make_server()
    options = ServerOptions([first.url, second.url], weights_directory=str(tmp_path))
    servers = VLLMServers(options, VLLMOptions())
    servers.load(policy, iter([("weight", torch.ones(2))]), 4)
    paths = {body["args"][0] for s in (first, second) for _, body in s.seen if body.get("method") == "take_policy"}
    assert len(paths) == 1
    assert not list(tmp_path.iterdir())
    assert servers.version() == 4


def test_a_restarted_server_gets_the_weights_again(make_server, policy, tokenizer, tmp_path):
    server = make_server()
    options = ServerOptions([server.url], weights_directory=str(tmp_path), backoff_seconds=0.0)
    engine = VLLMEngine(mode="server", servers=options)
    engine.start(tokenizer)
    engine.sync(policy, 6)
    server.version = "-1"
    groups = engine.generate([RolloutRequest((5, 6), 0)], 2, Sampling(max_new_tokens=4))
    assert [rollout.policy_version for rollout in groups[0]] == [6, 6]
    assert [body["method"] for path, body in server.seen if path == "/collective_rpc"].count("take_policy") == 2


def test_servers_that_hold_different_policies_are_noticed(make_server):
    first, second = make_server(), make_server()
    first.version, second.version = "3", "4"
    with pytest.raises(EngineDiedError, match="different policies"):
        backend(first, second).version()
