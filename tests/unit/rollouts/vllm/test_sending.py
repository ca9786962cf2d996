import threading
import urllib.error
import urllib.request

import pytest
import torch
from safetensors.torch import save_file

from caopd.errors import ConfigError
from caopd.rollouts.vllm.sending import sent
from caopd.vllm_host.keeper import WeightKeeper

WEIGHTS = [{"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}, {"c": torch.zeros(5)}]


class Worker(WeightKeeper):
    """Takes weights as vLLM's worker does, and keeps them."""

    def __init__(self):
        self.weights = {}

    def reload_weights(self, weights_iterator, is_checkpoint_format):
        assert is_checkpoint_format
        self.weights = dict(weights_iterator)


@pytest.fixture
def folder(tmp_path):
    for number, part in enumerate(WEIGHTS):
        save_file(part, tmp_path / f"{number:05d}.safetensors")
    (tmp_path / "lock").write_text("no weights")
    return tmp_path


def test_what_is_sent_arrives(folder, monkeypatch):
    """Past a proxy, which would not reach the trainer."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    worker = Worker()
    with sent(folder, "127.0.0.1") as url:
        assert worker.take_policy(url, "3") == "3"
    expected = WEIGHTS[0] | WEIGHTS[1]
    assert worker.weights.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(worker.weights[name], weight, rtol=0, atol=0)


def test_several_servers_are_sent_to_at_once(folder):
    workers = [Worker() for _ in range(4)]
    with sent(folder, "127.0.0.1") as url:
        threads = [threading.Thread(target=worker.take_policy, args=(url, "3")) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(len(worker.weights) == 3 for worker in workers)


@pytest.mark.parametrize("path", ["/index.json", "/00000.safetensors", "/{secret}/lock", "/{secret}/../lock", "/"])
def test_nothing_else_is_given_away(folder, path, capsys):
    with sent(folder, "127.0.0.1") as url:
        base, _, secret = url.rpartition("/")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(base + path.format(secret=secret))
    assert secret not in "".join(capsys.readouterr())


def test_the_end_is_the_end(folder):
    with sent(folder, "127.0.0.1") as url:
        pass
    with pytest.raises(ConnectionError, match=r"weights at 127.0.0.1:\d+, .* `weights_address` must be an address"):
        Worker().take_policy(url, "3")


def test_weights_that_are_missing_are_an_error(folder):
    with sent(folder, "127.0.0.1") as url, pytest.raises(FileNotFoundError, match=r"Expected 4 weights .* sees 3"):
        Worker().take_policy(url, "4")


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.1:eighty", "127.0.0.1:1000000"])
def test_an_address_that_cannot_be_used_is_named(folder, address):
    with pytest.raises(ConfigError, match=f"`weights_address`.*got '{address}'"), sent(folder, address):
        pass
