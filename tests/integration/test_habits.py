"""What the pages about habits show: their files and commands are read or run as they stand, only smaller."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from caopd.commands.configs.shipped import shipped
from tests.needs import needs_kernel

from .conftest import FSDP2, SIZES, options

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ("best_checkpoint", "notebooks", "one_gpu", "resume", "server", "sweeps", "two_gpus")


def text_of(page):
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def block(page, language, number=0):
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)[number]


def commands_of(page):
    """The indented commands of a page that begin with `caopd`, as words, without their comments."""
    joined = text_of(page).replace("\\\n", "")
    return [shlex.split(line, comments=True) for line in re.findall(r"^ {4,}(?:\w+=\S+ )*(caopd .*)$", joined, re.M)]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_of_the_command_line(page, tmp_path, forked):
    """Every config is there, or a file of the page, and every setting is accepted."""
    for name in {"best", "server", "two"} & {page.partition("_")[0]}:
        (tmp_path / f"{name}.yaml").write_text(block(page, "yaml"))
    for words in commands_of(page):
        configs = [words[index + 1] for index, word in enumerate(words) if word == "--config"]
        own = {path.name for path in tmp_path.glob("*.yaml")}
        assert all(name in {*shipped(), *own, "my_data.yaml", "my.yaml", "one_gpu.yaml"} for name in configs), words
        if words[1] != "fit" or not set(configs) & own:
            continue
        ended = forked([*words[1:], "--print_config"], tmp_path)
        assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.fixture(scope="module")
def best(forked, tmp_path_factory):
    """A run with the callbacks of the page, in which no validation after the first is better, and its output."""
    folder = tmp_path_factory.mktemp("best")
    (folder / "best.yaml").write_text(block("best_checkpoint", "yaml").replace("patience: 5", "patience: 1"))
    settings = {**SIZES, "trainer.max_epochs": 9, "trainer.default_root_dir": "runs", "model.optimizer.lr": 1e-9}
    ended = forked(["fit", "--config=quickstart", "--config=best.yaml", *options(settings)], folder)
    assert ended.returncode == 0, ended.stderr[-3000:]
    (run,) = (folder / "runs" / "lightning_logs").iterdir()
    return run, ended.stderr


def test_a_run_stops_early_says_so_and_keeps_the_best_and_the_newest_checkpoint(best):
    run, printed = best
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "newest.ckpt"}
    assert re.search(r"Monitored metric val/sampled/brier did not improve in the last 1 records", printed)
    assert json.loads((run / "metrics.json").read_text())["final"]["step"] < 9 * 4
    assert f"checkpoint: runs/lightning_logs/{run.name}/checkpoints/best.ckpt" in printed


def test_every_value_that_the_page_chooses_by_is_logged(best):
    measured = json.loads((best[0] / "metrics.json").read_text())["final"]
    for event, metric in re.findall(r"^\| `val/(greedy|sampled)/(\w+)` \|", text_of("best_checkpoint"), re.MULTILINE):
        assert metric in measured[event]


def test_a_sweep_goes_on_where_it_was_and_averages_over_seeds(tmp_path):
    ended = tmp_path / "runs" / "sweep" / "method=SDFT_seed=0" / "metrics.json"
    ended.parent.mkdir(parents=True)
    ended.write_text(json.dumps({"final": {"sampled": {"accuracy": 0.5, "ece": 0.5, "brier": 0.5, "auroc": None}}}))
    given = [*options({**SIZES, "trainer.max_epochs": 1}), "--trainer.enable_progress_bar=false"]
    sweep = [sys.executable, ROOT / "examples" / "sweep.py", "quickstart", "model.method=SDFT", "data.seed=0,1", "--"]
    ran = subprocess.run([*sweep, *given], cwd=tmp_path, capture_output=True, text=True, check=True)
    (trained,) = (file for file in tmp_path.rglob("metrics.json") if file != ended)
    assert trained.relative_to(ended.parents[1]).parts[0] == "method=SDFT_seed=1"
    other = json.loads(trained.read_text())["final"]["sampled"]["accuracy"]
    row = rf"^model.method=SDFT +2 +{(0.5 + other) / 2:.3f} ± {abs(0.5 - other) / 2**0.5:.3f} "
    assert re.search(row, ran.stdout, re.MULTILINE)


def test_the_strategy_of_the_page_is_the_one_that_the_tests_train_with():
    trainer = yaml.safe_load(block("two_gpus", "yaml"))["trainer"]
    assert trainer["strategy"]["class_path"] == FSDP2["trainer.strategy"]
    tested = {name.removeprefix("trainer.strategy."): value for name, value in FSDP2.items()}
    for name, value in trainer["strategy"]["init_args"].items():
        assert str(value).lower() == str(tested[name]), name
    assert str(trainer["inference_mode"]).lower() == FSDP2["trainer.inference_mode"]


def test_the_job_file_is_one_that_bash_reads(tmp_path):
    job = tmp_path / "train.sbatch"
    job.write_text(block("resume", "bash"))
    subprocess.run(["bash", "-n", job], check=True)
    (command,) = re.findall(r"^srun --kill-on-bad-exit (.*)$", job.read_text().replace("\\\n", ""), re.MULTILINE)
    words = shlex.split(command)
    assert words[:4] == ["caopd", "fit", "--config", "one_gpu"]
    tasks = re.search(r"--ntasks-per-node=(\d+)", job.read_text())[1]
    assert f"--trainer.devices={tasks}" in words


@needs_kernel
def test_the_notebook_runs_in_a_kernel(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cells = re.findall(r"^```python\n(.*?)^```$", text_of("notebooks"), re.MULTILINE | re.DOTALL)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    train, look, predict, draw = (cell.outputs for cell in notebook.cells)
    said = "".join(output.get("text") or output["data"]["text/plain"] for output in train)
    assert "round 2/2: loss" in said
    assert set(eval(look[-1]["data"]["text/plain"])) == {"initial", "final"}
    assert "Confidence:" in predict[-1]["data"]["text/plain"]
    assert "image/png" in draw[-1]["data"]
