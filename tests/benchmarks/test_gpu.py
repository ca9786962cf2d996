"""The script for a GPU: its parts at small sizes on a CPU, and that a part that fails loses no other."""

import json
import math
from argparse import Namespace

import pytest

from gpu.__main__ import main, run_section
from gpu.page import page
from gpu.sections import SECTIONS, Section
from gpu.sizes import SIZES

TINY = SIZES["tiny"]


def asked(**more):
    return Namespace(**{"size": "tiny", "device": "cpu", **more})


def rows_of(name):
    return list(SECTIONS[name].measure(TINY, "cpu"))


def test_bf16_is_near_float32_and_not_the_same():
    for row in rows_of("precision"):
        assert 0 < row["log-probability, mean"] <= row["log-probability, largest"] < 0.5
        assert 0 < row["gradient, relative"] < 0.2


def test_packed_rows_are_as_exact_as_plain_ones():
    rows = rows_of("attention")
    assert [(row["attention"], row["rows"]) for row in rows] == [
        (attention, way) for attention in ("sdpa", "eager") for way in ("plain", "packed")
    ]
    for row in rows:
        assert 0 < row["error"] < 0.05
        assert row["ms"] > 0


@pytest.mark.slow
def test_steps_are_run_as_users_run_them_with_and_without_shared_prompts():
    rows = rows_of("steps")
    assert [row["prompts"] for row in rows] == ["shared", "alone"]
    assert all(row["generation"] > 0 and row["training"] > 0 for row in rows)


@pytest.mark.slow
def test_whole_rounds_are_run_plain_and_sharded():
    rows = rows_of("rounds")
    assert [row["way"] for row in rows] == ["one device", "one device, FSDP2"]
    for row in rows:
        assert row["failed"] == ""
        assert row["rollout s"] > 0
        assert row["train s"] > 0
        assert row["planned GiB"] > 0


@pytest.mark.slow
def test_the_loss_is_measured_for_every_size_of_chunks():
    rows = rows_of("loss")
    assert [row["implementation"] for row in rows] == ["dense", "chunked, 16", "chunked, 64"]
    assert all(math.isclose(row["loss"], rows[0]["loss"], rel_tol=0.05) for row in rows)


def test_without_a_gpu_there_is_no_transfer_and_the_page_says_why(tmp_path, capsys):
    options = ["--size=tiny", "--device=cpu", "--sections", "transfer", f"--output={tmp_path / 'gpu.json'}"]
    main([*options, "--seconds=600"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert set(found["sections"]) == {"transfer"}
    assert "vLLM" in found["sections"]["transfer"]["rows"][0]["skipped"]
    assert "Left out: vLLM" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_fails_or_hangs_is_recorded_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setitem(SECTIONS, "absent", Section("Absent", "Nothing.", 1.0, "gpu.absent"))
    failed = run_section("absent", asked(), 300.0)  # the process knows no such part
    assert "invalid choice: 'absent'" in failed["failed"]
    late = run_section("precision", asked(), 0.1)
    assert late["failed"] == "not done after 0 seconds"
    record = {"device": "cpu", "timestamp": "2026-11-27", "versions": {}, "size": "tiny"}
    late["rows"] = [{"prompt": 58}]  # what it has said before
    text = page({**record, "sections": {"absent": failed, "precision": late}})
    assert "invalid choice" in text
    assert "| 58 |\n\nNo more, since it has failed:\n\n```text\nnot done after 0 seconds" in text


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (0.123456, "0.1235"), ("sdpa", "sdpa"), (8, "8")])
def test_a_row_shows_its_values(value, shown):
    record = {"device": "cpu", "timestamp": "2026-11-27", "versions": {}, "size": "tiny"}
    text = page({**record, "sections": {"loss": {"rows": [{"a": value, "b": "c"}], "seconds": 1.0}}})
    assert f"| {shown} | c |" in text
