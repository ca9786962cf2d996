import argparse

import pytest

from scale import CASES, options_of, page, plan

ASKED = argparse.Namespace(
    device="h100-80g", prompt_tokens=400, teacher_prompt_tokens=900, completion_tokens=600, price=2.5
)


@pytest.mark.parametrize("case", [CASES[0], CASES[5]], ids=lambda case: f"{case.model} on {case.gpus}")
def test_a_round_is_the_same_on_any_number_of_gpus(case, tmp_path):
    found = plan(case, ASKED, tmp_path)
    assert found["round"]["training samples"] == 256
    assert found["round"]["optimizer steps"] == 1
    assert found["round"]["sampled tokens"] == 256 * 600
    lines = page([(case, found)], ASKED).splitlines()
    (line,) = [each for each in lines if each.startswith(f"| {case.model} | ")]
    assert f"{found['seconds']['total']:,.0f}" in line
    (command,) = [each.strip() for each in lines if each.startswith("    caopd fit --config=configs/sdpo_caopd.yaml ")]
    assert command.split()[3:] == options_of(case, f"Qwen/Qwen3-{case.model}")[1:]


def test_every_size_is_planned_on_one_gpu_a_node_and_eight_nodes():
    assert {(case.model, case.gpus) for case in CASES} == {(m, n) for m in ("1.7B", "8B", "32B") for n in (1, 8, 64)}
