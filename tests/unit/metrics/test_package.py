"""Every class is there by its name, although it is imported only when it is asked for."""

import inspect

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
