"""What the documentation names exists: files, pages and their sections, and names of the package."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = [ROOT, ROOT / "caopd", ROOT / "tests", ROOT / "benchmarks"]
"""What a path in the documentation may be relative to."""
EXAMPLES = {
    "my_divergences.py",
    "my_method.py",
    "my_metric.py",
    "my_reward.py",
    "my_task.py",
    "caopd/metrics/certain.py",
    "caopd/metrics/functional/certain.py",
}
"""Files that a reader writes while following a page."""

CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?<![\w./:-])(?:[\w./-]+\.py|(?:caopd|tests|benchmarks|configs|docs|examples)/[\w./-]*\w)(?!\w)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
NAME = re.compile(r"(?<![\w./-])caopd(?:\.[A-Za-z_]\w*)+")


def text_of(page):
    return page.read_text(encoding="utf-8")


def anchors(page):
    """The anchors that MkDocs gives the headings of a page."""
    headings = HEADING.findall(FENCE.sub("", text_of(page)))
    kept = (re.sub(r"[^\w\s-]", "", heading.replace("`", "")) for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading.strip().lower()) for heading in kept}


def resolved(name):
    """What a dotted name stands for: an attribute of what stands before its last dot, or a module there."""
    before, _, last = name.rpartition(".")
    if not before:
        return importlib.import_module(name)
    found = resolved(before)
    if not hasattr(found, last) and hasattr(found, "__path__"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return getattr(found, last)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_exist(page):
    named = {part for code in CODE.findall(FENCE.sub("", text_of(page))) for part in FILE.findall(code)} - EXAMPLES
    missing = [name for name in sorted(named) if not any((folder / name).exists() for folder in FOLDERS)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    broken = []
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_resolve(page):
    unknown = []
    for name in sorted(set(NAME.findall(text_of(page)))):
        try:
            resolved(name)
        except AttributeError:
            unknown.append(name)
    assert not unknown


def test_every_page_is_in_the_contents():
    listed = set(re.findall(r": (\w+\.md)$", text_of(ROOT / "mkdocs.yml"), re.MULTILINE))
    assert listed == {page.name for page in PAGES} - {"README.md"}


@pytest.mark.parametrize(
    "name", ["caopd.nothing", "caopd.methods.Nothing", "caopd.methods.CaOPD.nothing", "caopd.types.nothing"]
)
def test_a_name_that_does_not_exist_is_found(name):
    with pytest.raises(AttributeError, match=r"(?i)nothing"):
        resolved(name)
