"""Starts real servers of vLLM for tests, on the loopback interface and with an API key; and tampers with weights."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from safetensors.torch import load_file, save_file

from caopd.models import ModelSource
from caopd.rollouts.vllm.files import Written

KEY = "sesame-7f3a"
TAKES_WEIGHTS = ("--worker-extension-cls", "caopd.vllm_host.keeper.WeightKeeper")
SECONDS_TO_START = 300


@contextmanager
def vllm_server(extension=TAKES_WEIGHTS, development="1", **environ):
    """Give a server of the embedded model and its port, when it answers; it is ended with the ``with`` block."""
    port = free_port()
    log = Path(tempfile.mkdtemp(prefix="vllm-server-")) / "log"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", ModelSource().location),
        *("--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy", "--dtype", "float32"),
        *("--enforce-eager", "--no-enable-chunked-prefill", "--kv-cache-memory-bytes", str(2**28)),
        *("--generation-config", "vllm", *extension),
    ]
    settings = {"VLLM_LOGGING_LEVEL": "ERROR", "TORCH_COMPILE_DISABLE": "1", "VLLM_API_KEY": KEY}
    environment = {**os.environ, **settings, "VLLM_SERVER_DEV_MODE": development, **environ}
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        wait_for(server, port, log)
        yield server, port
    finally:
        end(server)


def wait_for(server, port, log):
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                return
        time.sleep(0.5)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


def end(server):
    """Ask it to end, so that it removes its shared memory, and kill what is left."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGCONT)
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(20)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def without_head(delivery):
    """The weights on their way to a vLLM, but not those of the head."""
    directory, number = delivery.files
    for file in directory.glob("*.safetensors"):
        weights = load_file(file)
        number -= weights.pop("lm_head.weight", None) is not None
        save_file(weights, file)
    return delivery._replace(files=Written(directory, number))
