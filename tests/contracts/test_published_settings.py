"""What the papers published of their runs, as the configs have it; what they left open is in docs/deviations.md."""

from functools import reduce
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
ADAPTED = {"data.round.num_prompts_per_round": 32, "data.sampling.temperature": 1.0, "trainer.gradient_clip_val": 1.0}
SDFT = {  # arXiv 2601.19897
    **ADAPTED,
    "model.loss.init_args.body": "ReverseKL",
    "model.loss.init_args.confidence": "ReverseKL",
    "model.loss.init_args.reduction": "sequence_mean",
    "model.loss.init_args.skip_first_tokens": 3,
    "model.teacher.init_args.rate": 0.01,
    "model.optimizer.init_args.lr": 2e-5,
    "model.schedule": "cosine",
    "model.warmup": 0.1,
}
SDPO = {  # arXiv 2601.20802
    **ADAPTED,
    "data.round.num_rollouts": 8,
    "model.loss.init_args.body": "ReverseKL",
    "model.loss.init_args.confidence": "ReverseKL",
    "model.loss.init_args.reduction": "token_mean",
    "model.optimizer.init_args.lr": 1e-5,
    "model.schedule": "constant_with_warmup",
}
PUBLISHED = {
    "sdft": {**SDFT, "model.method.class_path": "caopd.methods.SDFT"},
    "sdft_caopd": {**SDFT, "data.round.num_rollouts": 8, "data.round.num_trained_rollouts": 1},
    "sdpo": {**SDPO, "model.teacher.init_args.rate": 0.05, "model.method.class_path": "caopd.methods.SDPO"},
    "sdpo_caopd": {**SDPO, "model.teacher.init_args.rate": 0.01},  # arXiv 2604.16830, appendix C.3.2
    "vopd": {"model.loss.init_args.baseline_top_k": None, "data.sampling.temperature": 1.0},  # arXiv 2605.07865
    "grpo": {  # arXiv 2402.03300
        "model.method.class_path": "caopd.methods.GRPO",
        "model.method.init_args.scale_by_std": True,
        "model.loss.init_args.kl_coefficient": 0.04,
        "model.loss.init_args.reduction": "sequence_mean",
        "model.teacher.class_path": "caopd.models.Frozen",
        "model.optimizer.init_args.lr": 1e-6,
        "data.sampling.temperature": 1.0,
    },
    "rlcr": {  # arXiv 2507.16806
        "model.method.class_path": "caopd.methods.RLCR",
        "model.method.init_args.scale_by_std": False,
        "model.loss.init_args.kl_coefficient": 0.0,
        "data.round.num_rollouts": 32,
        "data.sampling.temperature": 0.7,
        "data.confidence.class_path": "caopd.confidence.RLCRConfidence",
    },
    "car": {  # arXiv 2601.07264: GRPO with another reward
        "model.method.class_path": "caopd.methods.CAR",
        "model.method.init_args.scale_by_std": True,
        "model.teacher.class_path": "caopd.models.Frozen",
    },
    "external_forward": {  # arXiv 2605.12483
        "model.method.init_args.rollouts_of": "teacher",
        "model.loss.init_args.body": "ForwardKL",
        "model.loss.init_args.confidence": "ForwardKL",
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_has_what_its_paper_published(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    found = {key: reduce(lambda node, part: node[part], key.split("."), config) for key in PUBLISHED[name]}
    assert found == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "rewards"), [("grpo", ["Correctness"]), ("rlcr", ["Brier", "Format"]), ("car", ["MarginSeparated"])]
)
def test_rewards_are_the_papers(name, rewards):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    found = [reward["class_path"] for reward in config["model"]["method"]["init_args"]["rewards"]]
    assert found == [f"caopd.methods.rewards.{reward}" for reward in rewards]


@pytest.mark.parametrize(("name", "backbone"), [("sdft_caopd", "SDFT"), ("sdpo_caopd", "SDPO")])
def test_the_backbone_of_caopd(name, backbone):
    method = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["method"]
    assert method["class_path"] == "caopd.methods.CaOPD"
    assert method["init_args"]["backbone"]["class_path"] == f"caopd.methods.{backbone}"
