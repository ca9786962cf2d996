"""Where a round goes: a look counts for the innermost part, within rounds alone; every part exists."""

import inspect
import json
import sys
import time
from importlib import import_module

import pytest

import round_parts
from round_parts import PARTS, ROUND, looks, looks_of, page, part_of

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

    with looks() as found:
        call([ROUND[1], PARTS["sampling"][0]], work(0.6))
        call([ROUND[1], PARTS["backward"][0]], work(0.2))
        work(0.2)()
    assert set(found) == {"sampling", "backward"}
    assert found["sampling"] / sum(found.values()) == pytest.approx(0.75, abs=0.1)


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


def test_a_run_that_was_never_found_at_a_part_is_an_error(tmp_path):
    (tmp_path / "looks.json").write_text(json.dumps(dict.fromkeys(PARTS, 3) | {"all else": 3}))
    found = looks_of(tmp_path)
    (tmp_path / "looks.json").write_text(json.dumps({part: 3 for part in PARTS if part != "backward"}))
    with pytest.raises(ValueError, match="found at backward, but it was not"):
        looks_of(tmp_path)
    environment = {"timestamp": "2026-01-02T03:04", "versions": {"torch": "2"}}
    text = page({"environment": environment, "rounds": 2, "runs": {"quickstart": found, "science": found}})
    share = 3 / (3 * len(PARTS) + 3)
    assert f"| sampling | {share:.3f} | {share:.3f} |" in text
    assert f"| CPU seconds of a round | {3 * (len(PARTS) + 1) * round_parts.INTERVAL / 2:.1f} |" in text
