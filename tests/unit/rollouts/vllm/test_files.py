"""Weights on their way to vLLM: who can read them, and what happens where there is no room for them."""

import signal
import stat

import pytest
import torch

from caopd.errors import RolloutError
from caopd.rollouts.vllm import files
from caopd.rollouts.vllm.files import written

WEIGHTS = [(f"weight{number}", torch.ones(1000)) for number in range(3)]


def test_only_this_user_reads_the_files_and_they_are_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_PART_BYTES", 5000)
    with written(iter(WEIGHTS), str(tmp_path)) as (directory, number):
        parts = sorted(directory.glob("*.safetensors"))
        assert (number, len(parts)) == (3, 2)
        assert {stat.S_IMODE(part.stat().st_mode) for part in parts} == {0o600}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_keeps_nothing(tmp_path, largest_file, monkeypatch):
    monkeypatch.setattr(files, "MAX_PART_BYTES", 5000)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    largest_file(6000)  # the first part, of two weights, is larger
    with (
        pytest.raises(
            RolloutError, match=rf"^Make room for the weights in {tmp_path}.* 00000.safetensors of 8000 bytes"
        ),
        written(iter(WEIGHTS), str(tmp_path)),
    ):
        raise AssertionError("nobody reads them")
    signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
