"""Servers that answer as vLLM's do, and what works with them."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from caopd.rollouts import ServerOptions, VLLMOptions
from caopd.rollouts.vllm.server import VLLMServers
from caopd.vllm_host.keeper import SHAPING

SHAPES = {name: None for name in ("architectures", *SHAPING)}


class Answers(BaseHTTPRequestHandler):
    """Answers as vLLM does, after as many failures as its server still owes."""

    def respond(self):
        server = self.server
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length) or "{}")
        server.seen.append((self.path, body))
        server.keys.append(self.headers.get("Authorization"))
        server.wait.wait()
        time.sleep(server.delay)
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
        if self.path == "/health":
            return {}
        if self.path == "/collective_rpc" and body["method"] == "describe_model":
            return {"results": [json.dumps({**SHAPES, **self.server.shapes})]}
        if self.path == "/collective_rpc":
            held = self.server.version if body["method"] == "policy_version" else body["args"][0]
            if body["method"] == "stamp_policy":
                self.server.version = held
            return {"results": [held]}
        if self.path.endswith(("_weights", "_weight_update", "_weight_transfer_engine")):
            return {}
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
        server.complaint, server.wait, server.shapes = "busy", threading.Event(), {}
        server.delay = 0.0
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
