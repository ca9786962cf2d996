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


@pytest.mark.parametrize("calibrate_all", [True, False])
def test_on_sdpo_diagnostics_are_over_all_groups_and_say_what_was_trained(fit, tmp_path, calibrate_all):
    settings = {"model.method": "CaOPD", "model.method.backbone": "SDPO", "data.teacher_probe.every_num_rounds": 1}
    settings |= {"model.method.calibrate_all": calibrate_all, "trainer.max_epochs": 1, "data.keep_rounds": "null"}
    run = fit(tmp_path, **settings)
    groups = load_groups(run.directory / "rollouts" / "round_00000.jsonl")
    verdicts = [[verified.verdict.correct for verified in group.rollouts] for group in groups]
    solved = [[sum(each) > own for own in each] for each in verdicts]  # another one of the group is right
    without = sum(not each[0] for each in solved) / len(groups)  # the first rollout is trained on
    assert 0 < without < 1

    def logged(name):
        (value,) = run.scalars(f"rollout/{name}")
        return value

    assert logged("confidence_alone") == pytest.approx(without if calibrate_all else 0, abs=1e-6)
    assert logged("without_weight") == pytest.approx(0 if calibrate_all else without, abs=1e-6)
    rates = [sum(each) / len(each) for each in verdicts]
    assert logged("mu_hat") == pytest.approx(sum(rates) / len(rates), abs=1e-6)
    taught = [rate for rate, each in zip(rates, solved, strict=True) for has in each if has or calibrate_all]
    assert logged("stated_optimism") == pytest.approx(sum(taught) / len(taught) - logged("mu_hat"), abs=1e-6)
    assert (logged("stated_optimism") > 0.05) is not calibrate_all
    # The teacher completes all prompts, and is right wherever it sees a solution.
    assert logged("teacher_accuracy") >= sum(rate > 0 for rate in rates) / len(rates) - 0.05
    assert logged("optimism_bias") == pytest.approx(logged("teacher_accuracy") - logged("mu_hat"), abs=1e-6)
    assert run.scalars("train/teacher_copy_accuracy")[0] > 0.9
    alone = "train/teacher_copy_accuracy_alone"
    assert (alone in run.events.Tags()["scalars"]) is calibrate_all
    assert not calibrate_all or run.scalars(alone)[0] > 0.9
