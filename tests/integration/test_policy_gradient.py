"""GRPO, RLCR and CAR in a real Trainer, from one argument."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributions import Categorical

from caopd.cli import main
from caopd.confidence import InlineConfidence
from caopd.methods import RLCR
from caopd.rounds.buffer import load_groups
from caopd.rounds.encoding import SampleEncoder
from caopd.training.module import DistillationModule

ALL_TRAINED = {"data.round.num_trained_rollouts": "null", "data.batch_size": "32"}
ONE_STEP = {**ALL_TRAINED, "trainer.accumulate_grad_batches": "2"}
REFERENCE = {"model.loss": "PolicyGradientLoss", "model.loss.kl_coefficient": "0.1", "model.teacher": "Frozen"}


@pytest.fixture(scope="module")
def grpo(fit, tmp_path_factory):
    """With a frozen reference; a round is one optimizer step."""
    return fit(tmp_path_factory.mktemp("grpo"), **{"model.method": "GRPO", **ONE_STEP, **REFERENCE})


def test_on_policy_the_ratio_is_one(grpo):
    """The trainer's log-probabilities are those that the engine recorded, but for rounding."""
    assert grpo.scalars("train/clipped") == [0.0, 0.0]
    assert max(map(abs, grpo.scalars("train/kl_sampler"))) < 1e-9


def test_the_reference_is_the_model_of_the_start(grpo):
    first, last = (grpo.checkpoint(f"round{n}")["state_dict"] for n in (0, 1))
    names = [name for name in first if name.startswith("teacher.")]
    assert names
    assert all(torch.equal(first[name], last[name]) for name in names)
    assert any(not torch.equal(first[name], first[name.replace("teacher", "student", 1)]) for name in names)
    distances = grpo.scalars("train/kl_reference")
    assert abs(distances[0]) < 1e-6, "before the first step both are the same"
    assert distances[1] > 1e-6


def test_rewards_and_groups_without_a_signal_are_logged(grpo):
    lines = [
        json.loads(line) for line in (grpo.directory / "rollouts" / "round_00001.jsonl").read_text().splitlines()[1:]
    ]
    verdicts = [[verified["verdict"]["correct"] for verified in line["rollouts"]] for line in lines]
    equal = [len(set(group)) == 1 for group in verdicts]
    assert 0 < sum(equal) < len(equal)
    assert grpo.scalars("rollout/zero_advantage")[1] == pytest.approx(sum(equal) / len(equal))
    mean = sum(map(sum, verdicts)) / sum(map(len, verdicts))
    assert grpo.scalars("rollout/reward")[1] == pytest.approx(mean)
    assert grpo.scalars("rollout/reward_Correctness")[1] == pytest.approx(mean)
    assert all(value > 0 for value in grpo.scalars("train/student_entropy"))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_policy_that_learns_is_the_tempered_one_that_was_sampled(fit, tmp_path, temperature):
    """Its entropy before the first step, from the model itself at the tokens of the round's rollouts."""
    settings = {"trainer.max_epochs": 1, "data.sampling.temperature": temperature, "data.batch_size": 64}
    run = fit(tmp_path, **{"model.method": "RLCR", **ALL_TRAINED, **settings})
    model = DistillationModule(method=RLCR())
    model.configure_model()
    student = model.student.eval()
    encoder = SampleEncoder(model.tokenizer, InlineConfidence(), {}, model.max_length, 8)
    entropies = []
    for group in load_groups(run.directory / "rollouts" / "round_00000.jsonl"):
        (prompt,) = encoder.student_prompts([group.example])
        for verified in group.rollouts:
            ids = torch.tensor([[*prompt, *verified.rollout.token_ids]])
            with torch.no_grad():
                logits = student.hf(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            entropies.append(Categorical(logits=logits.double() / temperature).entropy())
    assert run.scalars("train/student_entropy") == [pytest.approx(torch.cat(entropies).mean().item(), rel=1e-4)]


def test_the_saved_config_repeats_the_run(grpo, tmp_path):
    assert main(["fit", f"--config={grpo.directory / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path}"]) == 0
    (metrics,) = tmp_path.rglob("metrics.json")
    assert json.loads(metrics.read_text()) == json.loads((grpo.directory / "metrics.json").read_text())


def test_several_steps_a_round_leave_the_sampler(fit, tmp_path):
    run = fit(tmp_path, **{"model.method": "GRPO", **ALL_TRAINED, "data.batch_size": "8", "trainer.max_epochs": 1})
    assert run.scalars("train/kl_sampler")[0] > 1e-6
    assert {name.split(".")[0] for name in run.checkpoint("round0")["state_dict"]} == {"student"}, "no reference"


OWN = """
from caopd.methods.rewards import Reward


class SayLittle(Reward):
    def __init__(self, target: float = 0.0, weight: float = 1.0) -> None:
        self.target, self.weight = target, weight

    def __call__(self, example, rollout):
        return -abs((rollout.reading.value or 0.0) - self.target)
"""


def test_a_reward_of_ones_own_joins_by_its_class_path(fit, tmp_path, monkeypatch):
    (tmp_path / "own_reward.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    method = {
        "class_path": "caopd.methods.GRPO",
        "init_args": {"rewards": [{"class_path": "own_reward.SayLittle", "init_args": {"target": 0.5, "weight": 2.0}}]},
    }
    config = tmp_path / "own.yaml"
    config.write_text(json.dumps({"model": {"method": method}}))
    run = fit(tmp_path, config, **ONE_STEP)
    own, total = run.scalars("rollout/reward_SayLittle"), run.scalars("rollout/reward")
    assert total == pytest.approx([2 * value for value in own])
    assert all(-0.5 <= value < -0.3 for value in own), "the embedded model nearly always states 1.00"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data.sampling.temperature=0", "--data.evaluation.num_samples=0"], "temperature above 0"),
        (["--data.sampling.top_p=0.9"], "top_p"),
        (["--data.sampling.temperature=0.7", "--data.round.num_trained_rollouts=2"], "one optimizer step a round"),
        (["--data.round.num_rollouts=1"], "at least 2 for GRPO"),
        (["--model.method.rewards=[]"], "at least one reward"),
    ],
)
def test_what_cannot_be_right_is_refused(arguments, said, tmp_path, capsys, request):
    config = request.config.rootpath / "configs" / "quickstart.yaml"
    where = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", f"--config={config}", where, "--model.method=GRPO", *arguments]) == 2
    assert said in capsys.readouterr().err


SETTINGS = {
    "trainer.max_epochs": 20,
    "trainer.check_val_every_n_epoch": 20,
    "data.round.num_prompts_per_round": 96,
    "data.round.num_trained_rollouts": "null",
    "data.batch_size": 192,
    "data.evaluation.num_examples": 500,
    "trainer.enable_checkpointing": "false",
    "trainer.callbacks": "null",
}


@pytest.fixture(scope="module")
def reports(command, request, tmp_path_factory):
    config = request.config.rootpath / "configs" / "quickstart.yaml"

    def run(method):
        directory = tmp_path_factory.mktemp(method)
        changes = {**SETTINGS, "trainer.default_root_dir": directory, "trainer.enable_progress_bar": "false"}
        options = [f"--{key}={value}" for key, value in changes.items()]
        result = command("fit", f"--config={config}", *options, f"--model.method={method}")
        assert result.returncode == 0, result.stderr[-4000:]
        (metrics,) = directory.rglob("metrics.json")
        return json.loads(metrics.read_text())

    methods = ("GRPO", "RLCR")
    with ThreadPoolExecutor(len(methods)) as pool:
        return dict(zip(methods, pool.map(run, methods), strict=True))


@pytest.mark.slow
def test_grpo_raises_the_accuracy_and_stays_overconfident(reports):
    before, after = (reports["GRPO"][moment]["greedy"] for moment in ("initial", "final"))
    assert after["accuracy"] > before["accuracy"] + 0.05
    assert after["mean_confidence"] > 0.98


@pytest.mark.slow
def test_rlcr_makes_the_confidence_truer(reports):
    before, after = (reports["RLCR"][moment]["greedy"] for moment in ("initial", "final"))
    assert abs(after["ocg"]) < 0.5 * abs(before["ocg"])
    assert after["brier"] < 0.75 * before["brier"]
    assert after["format_adherence"] > 0.95
