"""The benchmark of importance sampling: its moments against a recursion over prefixes, and what it writes."""

import json
import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

import importance

HORIZON = 4


def reach(tree, logits_PV):
    """The probability with which a sampler comes to every prefix."""
    probability_PV = logits_PV.softmax(-1)

    def of(prefix):
        return of(prefix[:-1]) * float(probability_PV[tree.prefixes[prefix[:-1]], prefix[-1]]) if prefix else 1.0

    return torch.tensor([of(prefix) for prefix in tree.prefixes], dtype=torch.float64)


@pytest.mark.parametrize("distance", [0.1, 1.0])
def test_the_bias_of_a_sum_of_divergences_is_that_of_where_the_prefixes_lie(distance):
    """A divergence is that of its prefix, so only how often a prefix is reached is wrong."""
    tree = importance.Tree(HORIZON)
    case = importance.random_case(tree, distance, seed=3)
    logits_PV = case.student_PV.clone().requires_grad_()
    kl = kl_divergence(Categorical(logits=logits_PV), Categorical(logits=case.teacher_PV)).sum()
    (gradient_PV,) = torch.autograd.grad(kl, logits_PV)
    student_P, engine_P = reach(tree, case.student_PV), reach(tree, case.engine_PV)
    wanted_PV = student_P[:, None] * gradient_PV
    expected = float(((engine_P - student_P)[:, None] * gradient_PV).norm() / wanted_PV.norm())
    arguments = (tree, case, "divergence", "sum over tokens")
    assert importance.bias_and_deviation(*arguments, "none")[0] == pytest.approx(expected)
    assert importance.bias_and_deviation(*arguments, "token")[0] == pytest.approx(expected, rel=1e-5)
    assert importance.bias_and_deviation(*arguments, "prefix")[0] < 1e-6


def test_mean_and_variance_are_those_of_every_completion_by_itself():
    tree = importance.Tree(HORIZON)
    case = importance.random_case(tree, 1.0, seed=4)
    gradient_YTV = importance.token_gradients(tree, case, "vOPD")
    weight_YT = importance.ratios(tree, case, importance.FORMS["prefix"], True)
    total, second = torch.zeros(len(tree.prefixes), 3, dtype=torch.float64), 0.0
    assert float(tree.logprobs(case.engine_PV).sum(1).exp().sum()) == pytest.approx(1.0)
    for number, tokens in enumerate(tree.token_YT.tolist()):
        own, probability = torch.zeros_like(total), 1.0
        for t in range(int(tree.mask_YT[number].sum())):
            place = int(tree.prefix_YT[number, t])
            own[place] += weight_YT[number, t] * gradient_YTV[number, t]
            probability *= float(case.engine_PV.softmax(-1)[place, tokens[t]])
        total += probability * own
        second += probability * float(own.square().sum())
    mean_PV, variance = importance.moments(tree, case.engine_PV, weight_YT, gradient_YTV)
    torch.testing.assert_close(mean_PV, total)
    assert variance == pytest.approx(second - float(total.square().sum()))


def test_a_whole_completions_ratio_is_unbiased_for_all_signals_and_reductions():
    tree = importance.Tree(HORIZON)
    case = importance.random_case(tree, 1.0, seed=5)
    for signal in importance.SIGNALS:
        for reduction in importance.REDUCTIONS:
            bias, deviation = importance.bias_and_deviation(tree, case, signal, reduction, "sequence")
            assert bias < 1e-5
            assert math.isfinite(deviation)
            assert importance.bias_and_deviation(tree, case, signal, reduction, "none")[0] > 0.05


def test_writes_what_it_measured(tmp_path):
    importance.main(["--num_cases=3", "--horizon=3", f"--results={tmp_path}"])
    rows = json.loads((tmp_path / "importance.json").read_text())["rows"]
    assert len(rows) == len(importance.DISTANCES) * 3 * 2 * len(importance.FORMS)
    row = next(row for row in rows if row["form"] == "prefix, cap 2")
    cell = f"{100 * row['bias']:.3f} / {100 * row['deviation']:.0f}"
    assert f"| prefix, cap 2 | {cell} |" in (tmp_path / "importance.md").read_text()
