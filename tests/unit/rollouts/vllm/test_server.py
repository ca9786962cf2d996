"""What happens when servers fail; that real ones work is in the contract suite."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from caopd.errors import ConfigError, EngineDiedError, RolloutError
from caopd.rollouts import RolloutRequest, Sampling, ServerOptions, VLLMEngine, VLLMOptions
from caopd.rollouts.vllm.server import VLLMServers


class Answers(BaseHTTPRequestHandler):
    """Answers as vLLM does, after as many failures as its server still owes."""

    def respond(self):
        server = self.server
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length) or "{}")
        server.seen.append((self.path, body))
        server.keys.append(self.headers.get("Authorization"))
        server.wait.wait()
        status = server.failures.pop(0) if server.failures else 200
        payload = json.dumps(self.answer(body)).encode() if status == 200 else server.complaint.encode()
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
        server.seen, server.keys, server.version, server.forgets = [], [], "-1", True
        server.complaint, server.wait = "busy", threading.Event()
        server.wait.set()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.wait.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def backend():
    """Gives what works with servers; it is closed at the end."""
    made = []

    def make(*servers, **options):
        urls = [server if isinstance(server, str) else server.url for server in servers]
        made.append(
            VLLMServers(ServerOptions(urls, **{"retries": 2, "backoff_seconds": 0.0, **options}), VLLMOptions())
        )
        return made[-1]

    yield make
    for servers in made:
        servers.close()


REQUESTS = [RolloutRequest((number, 7), number) for number in range(5)]


def test_prompts_are_spread_and_answers_come_back_in_order(make_server, policy, backend):
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
def test_an_overloaded_server_is_asked_again(make_server, policy, status, backend):
    server = make_server(failures=[status, status])
    backend(server).start(policy)
    assert [path for path, _ in server.seen] == ["/v1/models"] * 3 + ["/collective_rpc"]


def test_patience_has_an_end(make_server, policy, backend):
    server = make_server(failures=[503] * 9)
    with pytest.raises(RolloutError, match="503"):
        backend(server).start(policy)
    assert len(server.seen) == 3


def test_a_server_that_is_not_there_is_named(policy, backend):
    expected = r"^Start the vLLM server http://127.0.0.1:9, or correct `servers.urls`: .* in 3 tries .*refused"
    with pytest.raises(RolloutError, match=expected):
        backend("http://127.0.0.1:9").start(policy)


@pytest.mark.parametrize(
    ("failures", "complaint", "message"),
    [
        ([404], "Not Found", r"^Start the vLLM server http://\S+ with VLLM_SERVER_DEV_MODE=1"),
        (
            [500],
            "Worker failed with error ''GPUWorker' object has no attribute 'policy_version''",
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
        backend(server).start(policy)


def test_a_server_that_does_not_answer_in_time_is_asked_once(make_server, policy, backend):
    well, stuck = make_server(), make_server()
    stuck.wait.clear()
    begin = time.monotonic()
    with pytest.raises(RolloutError, match=rf"^Restart the vLLM server {stuck.url}, or raise `start_seconds`.* 0.5 s"):
        backend(well, stuck, start_seconds=0.5).start(policy)
    assert time.monotonic() - begin < 5
    assert len(stuck.seen) == 1


def test_a_server_that_is_stuck_later_is_named(make_server, policy, backend):
    well, stuck = make_server(), make_server()
    servers = backend(well, stuck, timeout_seconds=0.5)
    servers.start(policy)
    stuck.wait.clear()
    with pytest.raises(RolloutError, match=rf"^Restart the vLLM server {stuck.url}, or raise `timeout_seconds`"):
        servers.sample(REQUESTS, 3, Sampling(), (2,))


def test_every_request_carries_the_key(make_server, policy, backend, monkeypatch, tmp_path):
    """Also where the user's ~/.netrc holds a password for the machine."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("THE_KEY", "sesame")
    server = make_server()
    servers = backend(server, api_key_variable="THE_KEY")
    servers.start(policy)
    servers.load(policy, iter([("weight", torch.ones(2))]), 4)
    servers.sample(REQUESTS, 3, Sampling(), (2,))
    assert len(server.keys) > 5
    assert set(server.keys) == {"Bearer sesame"}


@pytest.mark.parametrize(("key", "held"), [("", "it is empty"), ("wrong-key", "is refused")])
def test_a_refused_key_is_asked_for_and_not_shown(make_server, policy, backend, monkeypatch, key, held):
    monkeypatch.setenv("VLLM_API_KEY", key)
    server = make_server(failures=[401])
    with pytest.raises(RolloutError, match=rf"^Put the API key of the vLLM server .*`VLLM_API_KEY`.*{held}") as caught:
        backend(server).start(policy)
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
        backend(make_server(), weights_directory=str(tmp_path / "nowhere")).start(policy)


def test_a_cache_that_stays_is_an_error(make_server, policy, backend):
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
