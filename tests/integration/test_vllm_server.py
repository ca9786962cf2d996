"""``caopd fit`` with a real vLLM server that asks for an API key."""

import os
import signal
import threading
import time

import pytest

from tests.integration.conftest import QUICKSTART, SMALL, Run, options
from tests.needs import needs_vllm
from tests.vllm_servers import KEY, vllm_server

pytestmark = needs_vllm


@pytest.fixture
def fit(forked, monkeypatch):
    """Run the command, its weights handed over in a folder of its own, and return what it printed."""

    def run(root, port, key=KEY, servers="", more="", **settings):
        monkeypatch.setenv("VLLM_API_KEY", key)
        return forked(arguments(root, f"{port}{more}", servers, settings), root)

    return run


def arguments(root, port, servers, settings):
    weights = root / "weights"
    weights.mkdir(exist_ok=True)
    servers = f"urls: [http://127.0.0.1:{port}], weights_directory: {weights}, {servers}retries: 1"
    merged = {
        **SMALL,
        "trainer.default_root_dir": root,
        "trainer.max_epochs": 1,
        "data.engine": "caopd.rollouts.VLLMEngine",
        "data.engine.mode": "server",
        "data.engine.servers": f"{{{servers}}}",
        **settings,
    }
    return ["fit", f"--config={QUICKSTART}", *options(merged)]


def check(run, root, message):
    """The run ended with this message, at the head of one line, and kept the key and the weights to itself."""
    assert run.returncode == 1, run.stderr[-3000:]
    assert "Traceback" not in run.stderr
    assert f"error: {message}" in run.stderr, run.stderr[-3000:]
    check_secrets(run, root)


def check_secrets(run, root):
    assert not list((root / "weights").iterdir())
    assert KEY not in run.stderr
    assert not [path for path in root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_run_uses_a_server_with_its_key_and_keeps_it_secret(server, fit, tmp_path):
    run = fit(tmp_path, server[1])
    assert run.returncode == 0, run.stderr[-3000:]
    assert max(Run(tmp_path).scalars("rollout/parity_max")) < 1e-4
    check_secrets(run, tmp_path)


@pytest.mark.slow
def test_a_server_that_shares_no_folder_gets_weights_over_http(server, fit, tmp_path):
    run = fit(tmp_path, server[1], servers="weights_address: 127.0.0.1, ")
    assert run.returncode == 0, run.stderr[-3000:]
    assert max(Run(tmp_path).scalars("rollout/parity_max")) < 1e-4
    check_secrets(run, tmp_path)


def test_a_wrong_key_is_an_error_that_names_its_variable(server, fit, tmp_path):
    run = fit(tmp_path, server[1], key="wrong-7f3a")
    check(
        run, tmp_path, f"Put the API key of the vLLM server http://127.0.0.1:{server[1]} into the environment variable"
    )
    assert "wrong-7f3a" not in run.stderr


@pytest.mark.slow
def test_a_server_that_is_stuck_is_an_error_that_names_it(server, fit, tmp_path):
    process, port = server
    os.killpg(process.pid, signal.SIGSTOP)
    run = fit(tmp_path, port, servers="start_seconds: 3, ")
    os.killpg(process.pid, signal.SIGCONT)
    check(run, tmp_path, f"Restart the vLLM server http://127.0.0.1:{port}, or raise `start_seconds`")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("started", "message"),
    [
        ({"development": "0"}, "with VLLM_SERVER_DEV_MODE=1 in its environment"),
        ({"extension": ()}, "with `--worker-extension-cls caopd.vllm_host.keeper.WeightKeeper`"),
    ],
    ids=["without development mode", "without the extension"],
)
def test_a_server_that_takes_no_weights_is_an_error_that_says_how_it_is_started(fit, tmp_path, started, message):
    with vllm_server(**started) as (_, port):
        run = fit(tmp_path, port)
    check(run, tmp_path, f"Start the vLLM server http://127.0.0.1:{port} {message}")


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_samples_is_an_error_that_names_it(fit, tmp_path):
    with vllm_server() as (process, port):
        kill_at_work(process, tmp_path)
        run = fit(tmp_path, port, **{"trainer.max_epochs": 1000})
    check(run, tmp_path, f"Start the vLLM server http://127.0.0.1:{port}, or correct `servers.urls`")


@pytest.mark.slow
def test_of_two_servers_one_can_be_killed(server, fit, tmp_path):
    """The run goes on with the other one, and draws the same completions as with both."""
    with vllm_server() as (process, port):
        kill_at_work(process, tmp_path)
        run = fit(tmp_path, server[1], more=f", http://127.0.0.1:{port}", **{"trainer.max_epochs": 3})
    assert run.returncode == 0, run.stderr[-3000:]
    assert f"vLLM server http://127.0.0.1:{port} is left out" in run.stderr
    alone = tmp_path / "alone"
    alone.mkdir()
    assert fit(alone, server[1], **{"trainer.max_epochs": 3}).returncode == 0
    assert Run(tmp_path).scalars("train/loss") == pytest.approx(Run(alone).scalars("train/loss"), abs=1e-5)


def kill_at_work(process, root):
    """Kill a server when the first round has been sampled."""

    def wait_and_kill():
        while not list(root.rglob("round_00000.jsonl")):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)

    threading.Thread(target=wait_and_kill, daemon=True).start()
