"""The names that ``caopd`` itself gives: all there, all listed, none imported before it is asked for."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import caopd
from caopd.evaluation import EvaluationConfig
from caopd.losses import Divergence, TrainingLoss
from caopd.methods import Distillation, Method
from caopd.methods.estimators import Estimator
from caopd.methods.rewards import Reward
from caopd.models import Teacher
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule


def imported_for_type_checkers():
    tree = ast.parse(Path(caopd.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_every_name_is_the_one_of_its_module():
    for name, module in imported_for_type_checkers().items():
        assert getattr(caopd, name) is getattr(importlib.import_module(module), name), name


def test_type_checkers_and_completion_see_the_same_names():
    assert set(imported_for_type_checkers()) == set(caopd.__all__) == set(caopd._MODULES)
    assert set(caopd.__all__) <= set(dir(caopd))
    assert "__version__" in dir(caopd)


def concrete(base):
    """The package's own classes; what a test or an example in a docstring defines is not found in its module.

    Those of ``caopd.training`` are for its own scripts, as the method that makes the embedded model.
    """
    for each in base.__subclasses__():
        room = each.__module__.split(".")[:2]
        ours = (
            room[0] == "caopd"
            and room != ["caopd", "training"]
            and vars(sys.modules[each.__module__]).get(each.__name__) is each
        )
        if ours and not inspect.isabstract(each):
            yield each
        yield from concrete(each)


@pytest.mark.parametrize("base", [Method, Estimator, Reward, TrainingLoss, Divergence, Teacher])
def test_every_class_that_goes_by_its_short_name_is_there(base):
    names = {each.__name__ for each in concrete(base)}
    assert len(names) >= 3
    assert names <= set(caopd.__all__)
    assert Distillation.__name__ not in names


@pytest.mark.parametrize("part", [DistillationModule, RolloutDataModule, EvaluationConfig])
def test_every_dataclass_of_a_constructor_is_there(part):
    defaults = [parameter.default for parameter in inspect.signature(part).parameters.values()]
    ours = {type(each).__name__ for each in defaults if type(each).__module__.startswith("caopd.")}
    assert ours <= set(caopd.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'caopd' has no attribute 'CAOPD'"):
        caopd.CAOPD  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'CAOPD' from 'caopd'"):
        from caopd import CAOPD  # noqa: F401


def test_asking_for_one_name_imports_no_more_than_its_module():
    code = "import sys; from caopd import CaOPD, CaopdError; print('torch' in sys.modules, CaOPD().min_rollouts)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False 1\n"
