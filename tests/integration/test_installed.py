"""The package as it is installed from a wheel, used outside of the checkout."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import SIZES, options

ROOT = Path(__file__).parents[2]
OF_BUILD = ("caopd", "configs", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Run the command of a wheel that was made of a copy of the sources, in a folder of its own."""
    if find_spec("pip") is None or find_spec("setuptools") is None:
        pytest.skip("needs pip and setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "sources"
    copy.mkdir()
    for name in OF_BUILD:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    alone = ["--no-deps", "--no-build-isolation", "--no-index"]
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", str(copy), *alone, "-w", str(folder)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    shutil.rmtree(copy)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(target / "bin" / "caopd"), *arguments]
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=600)

    run.elsewhere = elsewhere
    return run


def test_the_quickstart_runs_by_its_name(installed):
    result = installed("fit", "--config", "quickstart", *options(SIZES))
    assert result.returncode == 0, result.stderr[-3000:]
    assert list(installed.elsewhere.glob("runs/quickstart/lightning_logs/CaOPD-SDFT-DrawTask-seed0/metrics.json"))
    result = installed("report", "runs")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "completions-form" in (installed.elsewhere / "report" / "report.html").read_text()


def test_configs_are_listed_and_copied(installed):
    names = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    }
    listed = installed("configs").stdout.splitlines()
    assert names <= {line.split()[0] for line in listed if line}
    assert installed("configs", "one_gpu").returncode == 0
    assert (installed.elsewhere / "one_gpu.yaml").read_text() == (ROOT / "configs" / "one_gpu.yaml").read_text()
