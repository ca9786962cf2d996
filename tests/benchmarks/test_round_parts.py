"""Where a round goes: a look counts for the innermost part, within rounds alone; every part exists."""

import inspect
import json
import sys
import time
from importlib import import_module

import pytest
import torch

from round_parts import PARTS, ROUND, looks, page, part_of, seconds_of

CALL = "def {name}(inner):\n    return inner()"


def call(functions, inner):
    """Call functions of given names and files, each within the one before, and in the last one ``inner``."""
    for name, file in reversed(functions):
        scope = {}
        exec(compile(CALL.format(name=name), f"/somewhere/{file}", "exec"), scope)
        inner = (lambda function, within: lambda: function(within))(scope[name], inner)
    return inner()


def here():
    return part_of(sys._getframe())


def test_a_look_counts_for_the_innermost_part_of_a_round():
    making, stepping = ROUND
    step, teacher = PARTS["student and loss, forward"][0], PARTS["teacher, forward"][0]
    assert here() is None
    assert call([step], here) is None  # not in a round, such as a check before the first one
    assert call([stepping], here) == "all else"
    assert call([stepping, step], here) == "student and loss, forward"
    assert call([stepping, step, teacher], here) == "teacher, forward"
    assert call([making, PARTS["sampling"][0]], here) == "sampling"
    assert call([making, ("generate", "elsewhere.py")], here) == "all else"


def test_time_is_shared_out_as_it_is_spent():
    def work(seconds):
        def spend():
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        return spend

    left = torch.randn(1200, 1200)

    def multiply():
        """One operation, in which no look is taken."""
        start = time.process_time()
        left.repeat(12, 1) @ left
        spent.append(time.process_time() - start)

    spent = []
    with looks() as found:
        call([ROUND[1], PARTS["sampling"][0]], work(0.6))
        call([ROUND[1], PARTS["backward"][0]], multiply)
        call([ROUND[1], PARTS["verdicts and readings"][0]], work(0.2))
        work(0.2)()
    assert found["sampling"] == pytest.approx(0.6, abs=0.05)
    assert found["backward"] == pytest.approx(spent[0], abs=0.05)
    assert found["verdicts and readings"] == pytest.approx(0.2, abs=0.05)
    assert sum(found.values()) == pytest.approx(0.8 + spent[0], abs=0.05)


@pytest.mark.parametrize("functions", [ROUND, *PARTS.values()], ids=["round", *PARTS])
def test_parts_are_functions_that_exist(functions):
    """A part whose function was renamed would be counted as something else, in silence."""
    packages = {
        "loops": "lightning.pytorch.loops",
        "strategies": "lightning.pytorch.strategies",
        "optim": "torch.optim",
    }
    packages |= {"precision": "lightning.pytorch.plugins.precision"}
    for name, file in functions:
        folder, _, module = file.removesuffix(".py").rpartition("/")
        found = import_module(f"{packages.get(folder, 'caopd.' + folder.replace('/', '.'))}.{module}")
        classes = [each for _, each in inspect.getmembers(found, inspect.isclass) if each.__module__ == found.__name__]
        assert any(name in vars(each) for each in [found, *classes]), f"{file} has no {name}"


def test_the_page_has_shares_and_the_seconds_of_a_round(tmp_path):
    (tmp_path / "parts.json").write_text(json.dumps(dict.fromkeys(PARTS, 3.0) | {"all else": 3.0}))
    runs = {"quickstart": seconds_of(tmp_path), "science": {"seconds": {"backward": 2.0, "sampling": 6.0}}}
    environment = {"timestamp": "2026-01-02T03:04", "versions": {"torch": "2"}}
    text = page({"environment": environment, "runs": runs})
    assert f"| sampling | {1 / (len(PARTS) + 1):.3f} | 0.750 |" in text
    assert f"| CPU seconds of a round | {3 * (len(PARTS) + 1) / 10:.1f} | 8.0 |" in text
