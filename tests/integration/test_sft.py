"""SFT in a real Trainer: by one argument, without rollouts and without a teacher."""

import json

import pytest

from caopd.cli import main

SETTINGS = {"model.method": "SFT", "data.round.num_prompts_per_round": 64, "trainer.max_epochs": 12}


@pytest.fixture(scope="module")
def sft(fit, tmp_path_factory):
    with pytest.warns(UserWarning, match=r"DistillationLoss.*SFT.*CrossEntropyLoss"):
        return fit(tmp_path_factory.mktemp("sft"), **SETTINGS)


def test_it_learns_the_demonstrations(sft):
    losses = sft.scalars("train/cross_entropy")
    assert losses[-1] < 0.9 * losses[0]
    assert "train/kl_body" not in sft.events.Tags()["scalars"]


def test_no_rollouts_are_sampled(sft):
    assert not [tag for tag in sft.events.Tags()["scalars"] if tag in ("rollout/accuracy", "time/rollout_seconds")]
    lines = [json.loads(line) for line in sorted(sft.directory.glob("rollouts/*"))[-1].read_text().splitlines()[1:]]
    assert len(lines) == 64
    assert all(line["rollouts"] == [] for line in lines)


def test_no_teacher_is_made(sft):
    assert {name.split(".")[0] for name in sft.checkpoint("round0")["state_dict"]} == {"student"}


def test_an_estimator_that_asks_a_teacher_is_refused(tmp_path, capsys, request):
    config = request.config.rootpath / "configs" / "quickstart.yaml"
    arguments = ["--model.method=SFT", "--data.estimator=SelfConsistency", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", f"--config={config}", *arguments]) == 2
    assert "data.estimator" in capsys.readouterr().err
