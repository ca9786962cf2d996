"""Every shipped config that is made for 8 GPUs runs on two CPU processes, as users run it and with every default on."""

import json

import pytest
import torch
import yaml

from caopd.cli import main
from caopd.models.tiny import build_model, build_tokenizer
from tests.needs import needs_vllm

from .conftest import ROOT, Run

ROUNDS = 10  # as many as there are between two validations, and between two checkpoints
MODEL, DATA, PLACE = "<a small model>", "<a file of rows>", "<a folder>"
REPLACED = {
    # names of models and data, and the folder of the run
    "model.source.name_or_path": MODEL,
    "model.teacher.init_args.source.name_or_path": MODEL,
    "data.task.init_args.source": DATA,
    "trainer.default_root_dir": PLACE,
    # sizes
    "trainer.max_epochs": ROUNDS,
    "data.round.num_prompts_per_round": 8,
    "data.round.num_rollouts": 2,
    "data.sampling.max_new_tokens": 8,
    "data.evaluation.max_new_tokens": 8,
    # the device, and how the strategy and vLLM spread over devices
    "trainer.accelerator": "cpu",
    "trainer.devices": 2,
    "trainer.strategy.init_args.data_parallel_size": 2,
    "data.engine.init_args.vllm.tensor_parallel_size": 1,
}
"""Setting -> its value here. Only what a config sets itself is replaced, and one rollout of a prompt stays one."""

ALWAYS = ("sdpo_caopd",)
"""What always runs: FSDP2, the strategy of all of them, `auto` for the engine, a method in a wrapper, a moving teacher.

The others run before a release: other losses (policy gradients, vOPD, cross-entropy), no teacher, a frozen one or
another model, one rollout of a prompt, fewer trained than sampled.
"""
FOR_8_GPUS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "configs").glob("*.yaml"))
    if yaml.safe_load(path.read_text())["trainer"]["devices"] == 8
}
ROW = {
    "prompt": "Which element is a noble gas?\n\nA: iron\nB: neon\nC: lead\nD: zinc\nPlease reason step by step.",
    "answer": "B",
    "domain": "Chemistry",
    "details": {"level": "L3"},
    "type": "mcq-4-choices",
}


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """The embedded architecture, untrained, with room for long prompts."""
    return saved_model(tmp_path_factory.mktemp("model"), width=32, num_layers=1)


def saved_model(directory, width, num_layers):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, width, num_layers)
    model.config.max_position_embeddings = 8192
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    for name, number in (("train", 16), ("test", 5)):
        lines = [json.dumps({**ROW, "idx": index}) for index in range(number)]
        (directory / f"{name}.jsonl").write_text("\n".join(lines))
    train, test = (str(directory / f"{name}.jsonl") for name in ("train", "test"))
    return {"files": {"train": train, "validation": test, "test": test}, "path": None, "splits": {}, "shares": {}}


def flat(config, above=""):
    """Every setting by its whole name; lists are one setting."""
    result = {}
    for key, value in config.items():
        name = f"{above}{key}"
        result |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return result


@pytest.fixture
def run_config(rows, forked, tmp_path, capsys):
    """Run a shipped config with a small model, and check that it is otherwise as it was shipped; return its output."""

    def run(name, model):
        path, shipped = ROOT / "configs" / f"{name}.yaml", flat(FOR_8_GPUS[name])
        given = {
            key: value
            for key, value in REPLACED.items()
            if any(f"{each}.".startswith(f"{key}.") for each in shipped)
            if (key, shipped.get(key)) != ("data.round.num_rollouts", 1)
        }
        values = {MODEL: model, DATA: json.dumps(rows), PLACE: tmp_path}
        overrides = [f"--{key}={values.get(value, value)}" for key, value in given.items()]
        result = forked(["fit", f"--config={path}", *overrides], tmp_path, 2)
        assert result.returncode == 0, result.stderr[-4000:]
        directory = Run(tmp_path).directory
        assert (directory / "checkpoints" / f"round{ROUNDS - 1}.ckpt").is_file()
        metrics = json.loads((directory / "metrics.json").read_text())
        assert (metrics["initial"]["step"], metrics["initial"]["greedy"]["n"]) == (0, 5)
        assert metrics["final"]["step"] >= ROUNDS
        assert len(Run(tmp_path).scalars("train/loss")) == metrics["final"]["step"]
        assert differing(path, directory, capsys) == set(given)
        return result.stderr

    return run


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in FOR_8_GPUS]
)
def test_a_config_for_8_gpus_runs_on_two_processes(name, small_model, run_config):
    run_config(name, small_model)


@needs_vllm
@pytest.mark.slow
def test_the_main_job_samples_with_vllm_on_two_processes(run_config, tmp_path_factory):
    """A model just above the size from which `auto` takes vLLM."""
    model = saved_model(tmp_path_factory.mktemp("larger"), width=128, num_layers=6)
    assert "rollout engine: VLLMEngine" in run_config("sdpo_caopd", model)


def differing(path, directory, capsys):
    """The settings in which a run differs from the shipped config, with every default in both."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", f"--config={path}", "--print_config"])
    before = flat(yaml.safe_load(capsys.readouterr().out))
    after = flat(yaml.safe_load((directory / "config.yaml").read_text()))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return {next((name for name in REPLACED if f"{key}.".startswith(f"{name}.")), key) for key in changed}


def test_the_configs_for_8_gpus_are_found():
    assert len(FOR_8_GPUS) == 11
    assert set(ALWAYS) <= FOR_8_GPUS.keys()
