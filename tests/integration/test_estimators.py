"""Estimators inside a run."""

from caopd.buffer import load_groups


def test_self_consistency_asks_the_teacher_with_its_context(fit, tmp_path):
    """The embedded teacher copies the digit of its context, so agreeing with it is being right: no verifier needed."""
    run = fit(tmp_path, **{"trainer.max_epochs": 1, "data.estimator": "caopd.estimators.SelfConsistency"})
    groups = load_groups(run.directory / "rollouts" / "round_00000.jsonl")
    agreeing = [sum(v.verdict.answer == group.example.target for v in group.rollouts) / 4 for group in groups]
    assert [group.mu_hat for group in groups] == agreeing
    assert len(set(agreeing)) > 1


def test_shrinkage_moves_every_estimate_towards_the_running_mean(fit, tmp_path):
    run = fit(tmp_path, **{"data.estimator": "caopd.estimators.Shrinkage", "data.estimator.strength": 4})
    groups = [load_groups(run.directory / "rollouts" / f"round_0000{number}.jsonl") for number in (0, 1)]
    shares = [[sum(v.verdict.correct for v in group.rollouts) for group in round_] for round_ in groups]
    first_mean = sum(shares[0]) / (4 * len(shares[0]))
    for prior_mean, round_, correct in zip((0.5, first_mean), groups, shares, strict=True):
        expected = [(number + 4 * prior_mean) / 8 for number in correct]
        assert [round(group.mu_hat, 12) for group in round_] == [round(value, 12) for value in expected]
