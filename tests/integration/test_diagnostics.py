"""The propositions' diagnostics inside a run."""

import pytest

from caopd.rounds.buffer import load_groups


def test_a_probe_measures_the_teacher_and_leaves_the_rollouts_alone(fit, tmp_path):
    """The embedded teacher copies its context's answer, so its success is about 1 where the student's is mu_hat."""
    settings = {"model.method": "SDFT", "data.keep_rounds": "null"}
    probed = fit(tmp_path / "probed", **settings, **{"data.teacher_probe.every_num_rounds": 2})
    plain = fit(tmp_path / "plain", **settings)
    files = [f"round_0000{number}.jsonl" for number in (0, 1)]
    for file in files:
        assert (probed.directory / "rollouts" / file).read_text() == (plain.directory / "rollouts" / file).read_text()
    groups = load_groups(probed.directory / "rollouts" / files[0])
    mu_hat = sum(group.mu_hats[0] for group in groups) / len(groups)

    (accuracy,) = probed.scalars("rollout/teacher_accuracy")  # of round 0; round 1 is not probed
    assert accuracy > 0.9
    assert probed.scalars("rollout/optimism_bias") == [pytest.approx(accuracy - mu_hat, abs=1e-6)]
    assert probed.scalars("rollout/stated_optimism")[0] == pytest.approx(1 - mu_hat, abs=1e-6)
    assert "rollout/optimism_bias" not in plain.events.Tags()["scalars"]
    assert probed.scalars("train/loss") == plain.scalars("train/loss")
