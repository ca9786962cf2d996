"""Configs by name, listed and copied."""

from pathlib import Path

import pytest
import yaml

from caopd.commands.configs.command import run
from caopd.commands.configs.shipped import config_file, shipped
from caopd.errors import ConfigError

CONFIGS = Path(__file__).parents[4] / "configs"


def test_every_config_of_the_folder_has_a_name():
    files = {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in CONFIGS.rglob("*.yaml")}
    assert {name: path.resolve() for name, path in shipped().items()} == files
    assert {"quickstart", "one_gpu", "data/gsm8k"} <= set(files)


def test_a_file_that_is_there_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.yaml", "data/gsm8k"):
        assert Path(config_file(name)).resolve() == (CONFIGS / name).with_suffix(".yaml"), name
    (tmp_path / "quickstart").write_text("{}")
    assert config_file("quickstart") == "quickstart"


def test_a_config_itself_is_no_name():
    assert config_file("trainer: {max_epochs: 3}") == "trainer: {max_epochs: 3}"


@pytest.mark.parametrize("given", ["quickstat", "configs/quickstart.yml", "Quickstart.yaml", "configs/quickstart.yaml"])
def test_the_nearest_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"got '{given}'. Did you mean 'quickstart'?"):
        config_file(given)


def test_a_name_that_is_near_none():
    with pytest.raises(ConfigError, match=r"got 'zzz'\. `caopd configs`"):
        config_file("zzz")


def test_every_config_is_listed_with_what_it_trains(capsys):
    assert run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(shipped())]] == list(shipped())
    assert "low-rank adapters of Qwen3-1.7B" in next(line for line in lines if line.startswith("one_gpu "))


def test_copies_are_the_files_and_replace_nothing(tmp_path, capsys):
    assert run(["quickstart", "data/gsm8k.yaml", f"--output={tmp_path / 'mine'}"]) == 0
    for name in ("quickstart", "gsm8k"):
        copied = (tmp_path / "mine" / f"{name}.yaml").read_text()
        assert yaml.safe_load(copied) == yaml.safe_load(next(CONFIGS.rglob(f"{name}.yaml")).read_text())
    told = capsys.readouterr().out
    assert f"caopd fit --config {tmp_path}/mine/quickstart.yaml --config {tmp_path}/mine/gsm8k.yaml" in told
    (tmp_path / "mine" / "quickstart.yaml").write_text("changed: 1")
    assert run(["sdft", "quickstart", f"--output={tmp_path / 'mine'}"]) == 2
    assert (tmp_path / "mine" / "quickstart.yaml").read_text() == "changed: 1"
    assert not (tmp_path / "mine" / "sdft.yaml").exists()
    assert "there is one: move it" in capsys.readouterr().err


def test_copying_what_there_is_not(capsys):
    assert run(["smollm2_sience"]) == 2
    assert "Did you mean 'smollm2_science'?" in capsys.readouterr().err
