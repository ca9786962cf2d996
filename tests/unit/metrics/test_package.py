"""Every class is there by its name, although it is imported only when it is asked for."""

import inspect
import subprocess
import sys

import pytest

import caopd.metrics


@pytest.mark.parametrize("name", caopd.metrics.__all__)
def test_every_name_is_the_thing_of_that_name(name):
    namespace = {}
    exec(f"from caopd.metrics import {name}", namespace)
    assert namespace[name].__name__ == name
    assert inspect.getmodule(namespace[name]).__name__.startswith("caopd.metrics.")


def test_another_name_is_an_import_error():
    with pytest.raises(ImportError, match=r"cannot import name 'Accuracy' from 'caopd\.metrics'"):
        from caopd.metrics import Accuracy  # noqa: F401


def test_every_name_is_listed_before_it_is_imported():
    code = "import sys, caopd.metrics as m; print(set(m.__all__) <= set(dir(m)), 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True False\n"
