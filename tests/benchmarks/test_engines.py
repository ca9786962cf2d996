"""The benchmark of a vLLM in every process: what is compared, the page, and the whole of it on a small model."""

import json
import subprocess
import sys

import pytest

from engines import against, cases, page
from tests.needs import needs_vllm


def test_completions_are_compared_token_for_token():
    """Two rounds of two completions: the second round's first has another second token, and is longer."""
    one = {"completions": [[[1, 2], [3]], [[1, 2], [3, 4]]]}
    other = {"completions": [[[1, 2], [3]], [[1, 5, 6], [3, 4]]]}
    assert against(other, one) == {"same_completions": [1.0, 0.5], "same_tokens": [1.0, 0.6]}


def test_every_case_makes_steps_of_the_same_size():
    for cores, options in cases(16).values():
        assert options["data.batch_size"] * options.get("trainer.devices", 1) == 16
        assert cores >= 1


@pytest.mark.slow
@needs_vllm
def test_a_whole_call_writes_record_and_page(tmp_path):
    small = ["model.source.name_or_path=embedded", "data.task=DrawTask", "data.task.num_train=64"]
    small += ["data.confidence=null", "data.evaluation.tasks={}"]
    call = [sys.executable, "benchmarks/engines.py", "--prompts", "4", "--rollouts", "2", "--batch", "4"]
    call += ["--options", *small, "--output", str(tmp_path / "found.json")]
    subprocess.run(call, check=True, timeout=900)
    record = json.loads((tmp_path / "found.json").read_text())
    assert [case["same_completions"] for case in record["cases"]] == [[1.0, 1.0]] * 3
    assert (tmp_path / "found.md").read_text() == page(record)
