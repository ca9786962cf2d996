"""Every shipped config is parsed whole and trains for two optimizer steps, large models replaced by a small one."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.cli import main
from tests.needs import needs_vllm

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
QUESTION = {
    "prompt": "Which element is a noble gas?\n\nA: iron\nB: neon\nC: lead\nD: zinc\nPlease reason step by step.",
    "answer": "B",
}
REQUEST = {
    "prompt": "Answer with tools.\nBegin!\nQuestion: What is the weather in Oslo?",
    "answer": json.dumps([{"Action": "getWeather", "Action_Input": json.dumps({"city": "Oslo"})}]),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Rows in the form of each task."""
    directory = tmp_path_factory.mktemp("data")
    sources = {}
    for name, row in (("ScienceQA", QUESTION), ("ToolUse", REQUEST)):
        file = directory / f"{name}.jsonl"
        file.write_text("".join(json.dumps({**row, "idx": index}) + "\n" for index in range(64)))
        sources[name] = {"files": dict.fromkeys(("train", "validation", "test"), str(file))}
    return sources


def replacements(config, small_model, source):
    """Settings that put what is at hand in place of GPUs, hub models and hub data."""
    settings = {
        "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "max_steps": 2, "precision": "32-true"},
        "model": {},
        "data": {"sampling": {"max_new_tokens": 8}, "evaluation": {"num_examples": 2}},
    }
    # A round of the size that one of the config's devices has: as many optimizer steps.
    prompts = config["data"]["round"]["num_prompts_per_round"] // config["trainer"]["devices"]
    settings["data"]["round"] = {"num_prompts_per_round": prompts}
    settings["data"]["evaluation"]["max_new_tokens"] = 8
    settings["trainer"]["enable_progress_bar"] = False
    if config["model"]["source"]["name_or_path"] == "embedded":
        settings["data"]["round"] = {"num_prompts_per_round": 64}
        task = config["data"]["task"]
        if "stages" in task.get("init_args", {}):
            settings["trainer"]["check_val_every_n_epoch"] = 1
            for stage in task["init_args"]["stages"]:
                stage["num_rounds"] = 1
                stage["task"]["init_args"]["num_train"] = 64
        else:
            task = {"class_path": "caopd.tasks.DrawTask", "init_args": {"num_train": 64}}
        settings["data"]["task"] = task
        return settings
    settings["model"]["source"] = {"name_or_path": str(small_model)}
    if "source" in config["model"].get("teacher", {}).get("init_args", {}):
        settings["model"]["teacher"] = {"init_args": {"source": {"name_or_path": str(small_model)}}}
    settings["trainer"]["strategy"] = "auto"
    settings["data"]["template_arguments"] = None
    settings["data"]["task"] = config["data"]["task"]
    name = settings["data"]["task"]["class_path"].rpartition(".")[2]
    settings["data"]["task"]["init_args"] = {"source": source[name]} if name in source else {"num_train": 64}
    return settings


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_for_two_steps(path, small_model, source, tmp_path):
    config = yaml.safe_load(path.read_text())
    merged = merge(config, replacements(config, small_model, source))
    merged["trainer"]["default_root_dir"] = str(tmp_path)
    changed = tmp_path / "config.yaml"
    changed.write_text(yaml.safe_dump(merged))
    assert main(["fit", f"--config={changed}"]) == 0
    (metrics,) = tmp_path.rglob("metrics.json")
    report = json.loads(metrics.read_text())
    assert report["initial"]["step"] == 0
    assert report["final"]["step"] == 2


@needs_vllm
def test_the_main_job_samples_with_vllm(small_model, source, tmp_path):
    """The small model is too small for `auto` to start one."""
    config = yaml.safe_load((CONFIGS[0].parent / "sdpo_caopd.yaml").read_text())
    merged = merge(config, replacements(config, small_model, source))
    engine = {"class_path": "caopd.rollouts.VLLMEngine", "init_args": {"options": {"kv_cache_gib": 0.25}}}
    merged["data"]["engine"] = engine
    merged["trainer"]["default_root_dir"] = str(tmp_path)
    merged["trainer"]["check_val_every_n_epoch"] = 2
    changed = tmp_path / "config.yaml"
    changed.write_text(yaml.safe_dump(merged))
    assert main(["fit", f"--config={changed}"]) == 0
    events = EventAccumulator(str(next(tmp_path.rglob("events*")).parent))
    events.Reload()
    assert max(event.value for event in events.Scalars("rollout/parity_max")) < 1e-4
    assert len(events.Scalars("rollout/parity_max")) == 2


def test_the_memory_that_the_config_for_one_gpu_states(tmp_path, capsys):
    """The shape of Qwen3-1.7B is that of its card; there is nothing on a hub to read here."""
    shape = {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 6144}
    heads = {"num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True, "vocab_size": 151936}
    config = {"model_type": "qwen3", "max_position_embeddings": 40960, **shape, **heads}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = CONFIGS[0].with_name("one_gpu.yaml")
    header = path.read_text().partition("seed_everything")[0]
    command = header.partition("caopd plan ")[2].splitlines()[0].split()
    assert main(["plan", *command, f"--model.source.name_or_path={tmp_path}", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["memory_bytes"]
    total = {phase: sum(part[phase] for part in parts if part["name"] != "total") for phase in ("rollouts", "training")}
    stated = [float(each) for each in re.findall(r"([\d.]+) GiB", header)]
    assert stated == [round(each / 2**30, 1) for each in total.values()]


def merge(config, changes):
    """Replace leaves; a task or a source is replaced whole."""
    result = dict(config)
    for key, value in changes.items():
        whole = key in ("task", "strategy", "template_arguments") or not isinstance(value, dict)
        result[key] = value if whole else merge(config.get(key, {}), value)
    return result


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_parsed_whole_as_it_is(path, capsys):
    """Nothing in the file is unknown, nothing is lost, and the method can be swapped by one argument."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", f"--config={path}", "--model.method=SDFT", "--print_config"])
    assert not ended.value.code
    parsed = yaml.safe_load(capsys.readouterr().out)
    config = yaml.safe_load(path.read_text())
    assert parsed["model"]["method"]["class_path"].endswith("SDFT")
    del parsed["model"]["method"], config["model"]["method"]
    assert_contained(config, parsed)


def assert_contained(part, whole):
    for key, value in part.items():
        if isinstance(value, dict):
            assert_contained(value, whole[key])
        elif isinstance(value, list):
            assert len(whole[key]) == len(value)
        elif isinstance(value, str) and isinstance(whole[key], dict):
            assert whole[key]["class_path"].rpartition(".")[2] == value, "a class by its short name"
        else:
            assert whole[key] == value, key


@pytest.mark.parametrize(
    ("backbone", "written"),
    [("SDPO", "caopd.SDPO"), ("caopd.SDPO", "caopd.SDPO"), ("caopd.methods.SDPO", "caopd.methods.SDPO")],
)
def test_a_backbone_is_swapped_by_its_name(backbone, written, capsys):
    arguments = ["--model.method=CaOPD", f"--model.method.backbone={backbone}", "--print_config"]
    with pytest.raises(SystemExit) as ended:
        main(["fit", f"--config={CONFIGS[0].with_name('quickstart.yaml')}", *arguments])
    assert not ended.value.code
    method = yaml.safe_load(capsys.readouterr().out)["model"]["method"]
    assert method["init_args"]["backbone"]["class_path"] == written
