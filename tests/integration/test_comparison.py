"""The comparison's script, end to end on a tiny budget: files, figures, and a second call that runs nothing."""

import json
import subprocess
import sys

import pytest

ARGUMENTS = [
    *("--only", "methods", "rollouts", "--methods", "SFT", "CaOPD on SDFT", "--rollouts", "2", "8"),
    *("--seeds", "3", "--ablation_seeds", "1", "--num_rounds", "2", "--num_prompts", "16", "--num_held_out", "40"),
    *("--curve_points", "2"),
]


@pytest.fixture(scope="module")
def compare(request, tmp_path_factory):
    places = {name: tmp_path_factory.mktemp(name) for name in ("directory", "results", "images")}

    def run(*more, status=0):
        options = [f"--{name}={path}" for name, path in places.items()]
        script = request.config.rootpath / "benchmarks" / "comparison.py"
        result = subprocess.run([sys.executable, script, *ARGUMENTS, *options, *more], capture_output=True, text=True)
        assert result.returncode == status, result.stderr[-4000:]
        assert "Traceback" not in result.stderr
        return places

    return run


@pytest.mark.slow
def test_it_writes_all_files_and_a_second_call_runs_nothing(compare):
    places = compare()
    found = json.loads((places["results"] / "comparison.json").read_text())
    assert [(run["part"], run["setting"]) for run in found["runs"]] == [
        ("methods", "SFT"),
        ("methods", "CaOPD on SDFT"),
        ("rollouts", "2"),
    ]
    assert all(
        run["final"]["greedy"]["n"] == run["final"]["sampled"]["n"] == 40 and run["cpu_seconds"] > 0
        for run in found["runs"]
    )
    assert len(found["runs"][0]["curves"]["val/greedy/accuracy"]) == 3
    assert {path.name for path in places["images"].iterdir()} == {
        f"comparison-{name}-{event}.svg"
        for name in ("confidence", "brier", "curves", "curves-gradients", "rollouts")
        for event in ("greedy", "sampled")
    }
    page = (places["results"] / "comparison.md").read_text()
    assert "| CaOPD on SDFT | 1 |" in page
    assert str(places["directory"]) not in page
    made = {path: path.stat().st_mtime_ns for path in places["directory"].glob("*.json")}
    assert len(made) == 3
    compare("--processes=1")
    assert {path: path.stat().st_mtime_ns for path in places["directory"].glob("*.json")} == made


def test_runs_that_are_missing_are_said_and_the_status_shows_it(compare):
    page = (compare("--seeds=4", "--processes=0", status=1)["results"] / "comparison.md").read_text()
    assert page.count("has not been run with these settings") == 3
