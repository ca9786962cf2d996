"""The command's own options, and the tables in the terminal."""

import io

import pytest
from rich.console import Console

from caopd.commands.plan.devices import CPU, GIB, device_of
from caopd.commands.plan.options import parse
from caopd.commands.plan.page import show, size_text, time_text
from caopd.commands.plan.plan import make_plan
from caopd.errors import ConfigError
from tests.unit.commands.plan.test_memory import MACHINE, SETUP


def test_other_options_are_left_for_fit():
    own, rest = parse(["--config", "a.yaml", "--device=h100-80g", "--json", "--data.batch_size=2"])
    assert (own.device, own.json, own.probe, own.prompt_tokens) == ("h100-80g", True, False, None)
    assert rest == ["--config", "a.yaml", "--data.batch_size=2"]


@pytest.mark.parametrize("option", ["--prompt_tokens=0", "--completion_tokens=-1", "--device=abacus"])
def test_values_that_mean_nothing_are_refused(option, capsys):
    with pytest.raises(SystemExit) as stop:
        parse([option])
    assert stop.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


def test_a_gpu_of_the_table_is_not_probed():
    with pytest.raises(ConfigError, match="--probe"):
        device_of("h100-80g", probe=True)
    assert device_of("h100-80g", probe=False).memory == 80 * GIB


def test_a_probe_measures_rates(monkeypatch):
    monkeypatch.setattr("caopd.commands.plan.devices._PROBE_SECONDS", 0.02)
    probed, assumed = device_of(CPU, probe=True), device_of(CPU, probe=False)
    assert probed.measured
    assert not assumed.measured
    assert probed.memory == assumed.memory
    assert 1e8 < probed.flops_32 < 1e13
    assert 1e8 < probed.bandwidth < 1e12


@pytest.mark.parametrize(("size", "text"), [(0, ""), (2**19, "0.5 MiB"), (3 * 2**29, "1.50 GiB")])
def test_sizes_in_words(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0123, "0.012 s"), (5, "5.0 s"), (90, "1.5 min"), (7200, "2.0 h")])
def test_times_in_words(seconds, text):
    assert time_text(seconds) == text


def test_tables_show_every_part_and_what_does_not_fit():
    console = Console(file=io.StringIO(), width=110)
    plan = make_plan(SETUP, MACHINE, 600 * 2**20, ["prompts: [bold] 10 tokens"])
    show(plan, console)
    text = console.file.getvalue()
    for part in plan.parts:
        assert part.name in text
    assert "prompts: [bold] 10 tokens" in text
    assert "It fits." in text
    small = Console(file=io.StringIO(), width=400)
    show(make_plan(SETUP, device_of("rtx4090-24g", probe=False), 30 * GIB, []), small)
    assert "warning: Sampling needs 30.0 GiB of 22.4 GiB and will not fit" in small.file.getvalue()
