"""Configs of public data sets, over a method's config: parsed whole, and trained on invented rows of the same shape."""

import json
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, DatasetDict

from caopd.cli import main
from tests.judges import serving
from tests.needs import needs_math

CONFIGS = Path(__file__).parents[2] / "configs"
METHOD = CONFIGS / "sdft_caopd.yaml"
NUM_ROWS = 300
WORDS = ("lead", "iron", "neon", "zinc")


def choices_of(n):
    return [f"{WORDS[(n + k) % 4]} {n}" for k in range(4)]


def gpqa(n):
    wrong = {f"Incorrect Answer {k}": choices_of(n)[k] for k in (1, 2, 3)}
    texts = {"Question": f"Which element is meant by {n}?", "Correct Answer": choices_of(n)[0], **wrong}
    return {
        **texts,
        "Explanation": f"It is {n}.",
        "High-level domain": "Physics",
        "Record ID": f"rec{n}",
        "Subdomain": "x",
    }


ROWS = {
    "gsm8k": lambda n: {
        "question": f"{n} packs of 2?",
        "answer": f"It is {n} * 2 = <<{n}*2={2 * n}>>{2 * n}.\n#### {2 * n}",
    },
    "math500": lambda n: {
        "problem": f"What is $\\frac{{{n}}}{{2}}$?",
        "solution": f"Half of {n} is $\\boxed{{\\frac{{{n}}}{{2}}}}$.",
        "answer": f"\\frac{{{n}}}{{2}}",
        "subject": "Algebra",
        "level": 1 + n % 5,
        "unique_id": f"test/algebra/{n}.json",
    },
    "gpqa": gpqa,
    "commonsense_qa": lambda n: {
        "id": f"{n:032x}",
        "question": f"Where is number {n}?",
        "question_concept": "number",
        "choices": {"label": list("ABCDE"), "text": [f"place {n} {k}" for k in range(5)]},
        "answerKey": "ABCDE"[n % 5],
    },
    "hotpot_qa": lambda n: {
        "id": f"{n:024x}",
        "question": f"Who came after {n}?",
        "answer": f"Ann {n}",
        "type": "bridge",
        "level": ("easy", "medium", "hard")[n % 3],
        "supporting_facts": {"title": ["One"], "sent_id": [0]},
        "context": {"title": ["One", "Two"], "sentences": [[f"Ann {n} came.", " Then others."], ["Nobody came."]]},
    },
    "trivia_qa": lambda n: {
        "question": f"Who is number {n}?",
        "question_id": f"tc_{n}",
        "question_source": "http://www.example.org/",
        "answer": {
            "aliases": [f"Ann {n}", f"Anna {n}"],
            "normalized_aliases": [f"ann {n}", f"anna {n}"],
            "value": f"Ann {n}",
            "type": "WikipediaEntity",
        },
    },
    "simple_qa": lambda n: {"metadata": "{'topic': 'Art'}", "problem": f"Who painted {n}?", "answer": f"Ann {n}"},
}
SPLITS = {
    "gsm8k": ("train", "test"),
    "math500": ("test",),
    "gpqa": ("train",),
    "commonsense_qa": ("train", "validation", "test"),
    "hotpot_qa": ("train", "validation"),
    "trivia_qa": ("train", "validation", "test"),
    "simple_qa": ("test",),
}
"""Splits of the hub."""
NAMES = [pytest.param(name, marks=needs_math) if name == "math500" else name for name in ROWS]


def test_every_config_has_rows_here():
    assert {path.stem for path in (CONFIGS / "data").iterdir()} == set(ROWS) == set(SPLITS)


def saved(name, directory):
    """Rows in the hub's splits and columns, as `save_to_disk` writes them; without answers where it has none."""
    splits = {}
    for place, split in enumerate(SPLITS[name]):
        rows = [ROWS[name](n) for n in range(place * NUM_ROWS, (place + 1) * NUM_ROWS)]
        if name == "commonsense_qa" and split == "test":
            rows = [{**row, "answerKey": ""} for row in rows]
        splits[split] = Dataset.from_list(rows)
    DatasetDict(splits).save_to_disk(directory)
    return directory


def fit(directory, small_model, config, **more):
    """Train for two steps over the method's config, with a small model; return the run's report."""
    prompts = yaml.safe_load(METHOD.read_text())["data"]["round"]["num_prompts_per_round"] // 8
    settings = {
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.strategy": "auto",
        "trainer.precision": "32-true",
        "trainer.max_epochs": 2,
        "trainer.max_steps": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.default_root_dir": directory / "run",
        "model.source.name_or_path": small_model,
        "data.template_arguments": "null",
        "data.round.num_prompts_per_round": prompts,
        "data.sampling.max_new_tokens": 8,
        "data.evaluation.max_new_tokens": 8,
        "data.evaluation.num_examples": 2,
        **more,
    }
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    assert main(["fit", f"--config={METHOD}", f"--config={config}", *arguments]) == 0
    (metrics,) = (directory / "run").rglob("metrics.json")
    return json.loads(metrics.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_config_trains_for_two_steps(name, small_model, tmp_path):
    given, config = "data.task.init_args", CONFIGS / "data" / f"{name}.yaml"
    settings = {f"{given}.source.path": saved(name, tmp_path / "rows"), f"{given}.source.name": "null"}
    with serving(lambda prompt: (200, "INCORRECT")) as (url, asked):
        if name == "simple_qa":
            settings[f"{given}.verifier.init_args.model.init_args.url"] = url
            settings[f"{given}.verifier.init_args.folder"] = tmp_path / "judged"
        report = fit(tmp_path, small_model, config, **settings)
        assert bool(asked) == (name == "simple_qa")
    assert report["final"]["step"] == 2
    assert report["final"]["greedy"]["n"] == 2
    (config_of_run,) = (tmp_path / "run").rglob("config.yaml")
    task = yaml.safe_load(config_of_run.read_text())["data"]["task"]["init_args"]
    shipped = yaml.safe_load(config.read_text())["data"]["task"]["init_args"]
    for key in ("splits", "shares", "columns", "revision", "files"):
        assert task["source"].pop(key) == shipped["source"].pop(key), key
    for key in shipped.keys() - {"source", "verifier"}:
        assert task[key] == shipped[key], key


def test_the_documented_table_of_ones_own_is_trained_on(small_model, tmp_path, monkeypatch):
    page = (CONFIGS.parent / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("## Own data in five minutes")[2].partition("## Where")[0]
    table, config = (fence.removeprefix("yaml").lstrip() for fence in section.split("```")[1::2])
    more = "".join(f"Who is number {n}?,Ann {n},people\n" for n in range(60))
    (tmp_path / "questions.csv").write_text(table + more)
    (tmp_path / "my_data.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    assert fit(tmp_path, small_model, tmp_path / "my_data.yaml")["final"]["step"] == 2
    (rollouts,) = (tmp_path / "run").rglob("round_00001.jsonl")
    groups = [json.loads(line) for line in rollouts.read_text().splitlines()[1:]]
    assert {group["example"]["category"] for group in groups} <= {"geography", "literature", "people"}


@pytest.mark.parametrize("method", ["sdpo_caopd", "rlcr", "smollm2_science"])
def test_a_config_goes_over_any_methods_config(method, capsys):
    configs = [f"--config={CONFIGS / f'{method}.yaml'}", f"--config={CONFIGS / 'data' / 'gpqa.yaml'}"]
    with pytest.raises(SystemExit) as ended:
        main(["fit", *configs, "--print_config"])
    assert not ended.value.code
    task = yaml.safe_load(capsys.readouterr().out)["data"]["task"]
    shipped = yaml.safe_load((CONFIGS / "data" / "gpqa.yaml").read_text())["data"]["task"]
    assert task["class_path"] == shipped["class_path"]
    for key, value in shipped["init_args"]["source"].items():
        assert task["init_args"]["source"][key] == value, key
