"""Estimators inside a run."""

import itertools

import pytest

from caopd.rounds.buffer import load_groups

from .conftest import STRATEGIES


def test_self_consistency_asks_the_teacher_with_its_context(fit, tmp_path):
    """The embedded teacher copies the digit of its context, so agreeing with it is being right: no verifier needed."""
    run = fit(tmp_path, **{"trainer.max_epochs": 1, "data.estimator": "caopd.methods.estimators.SelfConsistency"})
    groups = load_groups(run.directory / "rollouts" / "round_00000.jsonl")
    agreeing = [sum(v.verdict.answer == group.example.target for v in group.rollouts) / 4 for group in groups]
    assert [group.mu_hats[0] for group in groups] == agreeing
    assert len(set(agreeing)) > 1


def test_shrinkage_moves_every_estimate_towards_the_running_mean(fit, tmp_path):
    run = fit(tmp_path, **{"data.estimator": "caopd.methods.estimators.Shrinkage", "data.estimator.strength": 4})
    groups = [load_groups(run.directory / "rollouts" / f"round_0000{number}.jsonl") for number in (0, 1)]
    shares = [[sum(v.verdict.correct for v in group.rollouts) for group in round_] for round_ in groups]
    first_mean = sum(shares[0]) / (4 * len(shares[0]))
    for prior_mean, round_, correct in zip((0.5, first_mean), groups, shares, strict=True):
        expected = [(number + 4 * prior_mean) / 8 for number in correct]
        assert [round(group.mu_hats[0], 12) for group in round_] == [round(value, 12) for value in expected]


def test_leave_one_out_trains_each_rollout_on_the_others(fit, tmp_path):
    settings = {"trainer.max_epochs": 1, "data.round.num_trained_rollouts": "null"}
    run = fit(tmp_path, **settings, **{"data.estimator": "caopd.methods.estimators.LeaveOneOut"})
    for group in load_groups(run.directory / "rollouts" / "round_00000.jsonl"):
        correct = [verified.verdict.correct for verified in group.rollouts]
        expected = [sum(correct[:index] + correct[index + 1 :]) / 3 for index in range(4)]
        assert list(group.mu_hats) == pytest.approx(expected)


ADAPTIVE = {
    "trainer.max_epochs": 1,
    "data.round.num_rollouts": 8,
    "data.round.num_trained_rollouts": 2,
    "data.round.adaptive": "caopd.rounds.config.AdaptiveBudget",
    "data.round.adaptive.num_rollouts_per_batch": 2,
    "data.round.adaptive.max_deviation": 0.19,
}


@pytest.fixture(scope="module")
def adaptive(fit, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("adaptive"), **ADAPTIVE)


def rollouts_of(run):
    return load_groups(run.directory / "rollouts" / "round_00000.jsonl")


def test_a_group_stops_when_it_is_certain_enough(adaptive):
    """The rule again, with scipy: stop at the first multiple of 2 whose Jeffreys posterior is narrow, or at 8."""
    from scipy.stats import beta

    sizes = []
    for group in rollouts_of(adaptive):
        correct = [verified.verdict.correct for verified in group.rollouts]
        sizes.append(len(correct))
        narrow = [beta(sum(correct[:n]) + 0.5, n - sum(correct[:n]) + 0.5).std() <= 0.19 for n in (2, 4, 6, 8)]
        narrow[-1] = True
        assert len(correct) == 2 * (narrow.index(True) + 1)
    assert len(set(sizes)) > 1
    assert adaptive.scalars("rollout/num_rollouts") == [pytest.approx(sum(sizes) / len(sizes))]


def test_the_first_batch_is_what_a_fixed_budget_samples_and_the_others_differ(adaptive, fit, tmp_path):
    fixed = fit(tmp_path, **{"trainer.max_epochs": 1, "data.round.num_rollouts": 2})
    batches = []
    for group, expected in zip(rollouts_of(adaptive), rollouts_of(fixed), strict=True):
        assert group.rollouts[:2] == expected.rollouts
        ids = [verified.rollout.token_ids for verified in group.rollouts]
        batches += [(ids[:2], ids[start : start + 2]) for start in range(2, len(ids), 2)]
    assert any(first != later for first, later in batches)


def test_mu_hat_of_a_stopped_group_is_that_of_a_first_batch_of_which_so_many_are_right(adaptive):
    """By the definition: the mean, over all sequences that stop there with so many right, of their first two."""
    from scipy.stats import beta

    def stops(bits):
        return len(bits) == 8 or beta(sum(bits) + 0.5, len(bits) - sum(bits) + 0.5).std() <= 0.19

    ways = {}
    for bits in itertools.product((0, 1), repeat=8):
        end = next(n for n in (2, 4, 6, 8) if stops(bits[:n]))
        ways.setdefault((sum(bits[:end]), end), set()).add(bits[:end])
    expected = {state: sum(sum(bits[:2]) / 2 for bits in each) / len(each) for state, each in ways.items()}
    differs = 0
    for group in rollouts_of(adaptive):
        correct = [verified.verdict.correct for verified in group.rollouts]
        assert group.mu_hats[0] == pytest.approx(expected[sum(correct), len(correct)])
        differs += group.mu_hats[0] != sum(correct) / len(correct)
    assert differs


def test_shrinkage_learns_from_the_first_batches(fit, tmp_path):
    settings = {"data.estimator": "caopd.methods.estimators.Shrinkage", "data.estimator.strength": 4}
    run = fit(tmp_path, **{**ADAPTIVE, **settings, "trainer.max_epochs": 2})
    first, second = (load_groups(run.directory / "rollouts" / f"round_0000{number}.jsonl") for number in (0, 1))
    mean = sum(v.verdict.correct for group in first for v in group.rollouts[:2]) / (2 * len(first))
    whole = sum(sum(v.verdict.correct for v in g.rollouts) / len(g.rollouts) for g in first) / len(first)
    assert abs(mean - whole) > 1e-3
    for group in second:
        correct = [verified.verdict.correct for verified in group.rollouts]
        assert group.mu_hats[0] == pytest.approx((sum(correct) + 4 * mean) / (len(correct) + 4))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_processes_with_unequal_doubts_sample_the_same_round(strategy, adaptive, spawn, tmp_path):
    run = spawn(tmp_path, **ADAPTIVE, **STRATEGIES[strategy], **{"trainer.devices": 2, "data.batch_size": 2})
    found, expected = rollouts_of(run), rollouts_of(adaptive)
    still_unsure = [[len(group.rollouts) > 2 for group in half] for half in (expected[:8], expected[8:])]
    assert sum(still_unsure[0]) != sum(still_unsure[1])
    assert [[v.rollout.token_ids for v in group.rollouts] for group in found] == [
        [v.rollout.token_ids for v in group.rollouts] for group in expected
    ]
    assert [group.mu_hats[0] for group in found] == [group.mu_hats[0] for group in expected]


def test_levels_are_what_the_teacher_is_told_under_a_learned_prior_and_an_adaptive_budget(fit, tmp_path):
    settings = {**ADAPTIVE, "data.estimator": "EmpiricalBayes", "model.method.num_levels": 5, "trainer.max_epochs": 2}
    run = fit(tmp_path, **settings)
    groups = load_groups(run.directory / "rollouts" / "round_00001.jsonl")
    exact = [group.mu_hats[0] for group in groups]
    stated = [round(mu_hat * 4) / 4 for mu_hat in exact]
    assert exact != pytest.approx(stated, abs=1e-3), "what is measured is not rounded"
    smallest = min(len(group.rollouts) for group in groups)
    right = [sum(v.verdict.correct for v in group.rollouts[:smallest]) / smallest for group in groups]
    optimism = sum(c - r for c, r in zip(stated, right, strict=True)) / len(groups)
    assert run.scalars("rollout/stated_optimism")[1] == pytest.approx(optimism, abs=1e-6)
