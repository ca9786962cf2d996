"""Names that nothing has: the nearest one is named."""

import pytest

from caopd.cli import main
from caopd.training.spelling import concrete, explained
from caopd.verifiers import Verifier

UNION = """Parser key "trainer.precision":
  Does not validate against any of the Union subtypes
  Errors:
    - Expected a <class 'int'>
    - Expected a typing.Literal['16-mixed', 'bf16-mixed']
    - Expected a typing.Literal['64', 'bf16']
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: bf16-mixd"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--trainer.max_epochz=3", "Did you mean 'trainer.max_epochs'?"),
        ("--max_epochs=3", "Did you mean 'trainer.max_epochs'?"),
        ("--num_rollout=3", "Did you mean 'data.round.num_rollouts'?"),
        ("--modl.method=SDFT", "Did you mean 'model.method'?"),
        ("--model.teacher.rat=0.1", "Did you mean 'rate'?"),
        ("--model.optimizer.lrr=0.1", "Did you mean 'lr'?"),
        ("--model.method=caopd.methods.SDTF", "Did you mean 'SDFT'?"),
        ("--data.engine=TransformerEngine", "Did you mean 'TransformersEngine'?"),
        ("--data.engine=atuo", "Did you mean 'auto'?"),
        ("--data.task=drawtask", "Did you mean 'DrawTask'?"),
        ("--model.optimizer=AdamWW", "Did you mean 'AdamW'?"),
        ("--trainer.logger=TensorBoardLoger", "Did you mean 'TensorBoardLogger'?"),
        (
            "--model.schedule=linar",
            "one of constant_with_warmup, cosine, linear, but got 'linar'. Did you mean 'linear'?",
        ),
        ("--trainer.precision=bf16-mixd", "Did you mean 'bf16-mixed'?"),
        ("--model.source.attn_implementation=spda", "Did you mean 'sdpa'?"),
        ("--trainer.strategy=dpp", "Did you mean 'ddp'?"),
        ("--trainer.accelerator=gpuu", "Did you mean 'gpu'?"),
    ],
)
def test_the_nearest_name_from_the_command_line(given, said, capsys):
    assert main(["fit", "--config=quickstart", given]) == 2
    message = capsys.readouterr().err
    assert said in message[message.index("error: ") :]
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {round: {num_rolouts: 3}}", "Did you mean 'data.round.num_rollouts'?"),
        ("modle: {schedule: linear}", "Did you mean 'model.schedule'?"),
        ("model: {teacher: {class_path: EMA, init_args: {rte: 0.1}}}", "Did you mean 'rate'?"),
        ("model: {method: SDTF}", "Did you mean 'SDFT'?"),
    ],
)
def test_the_nearest_name_from_a_file(text, said, tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text(text)
    assert main(["fit", "--config=quickstart", f"--config={tmp_path / 'wrong.yaml'}"]) == 2
    assert said in capsys.readouterr().err


def test_the_nearest_command(capsys):
    assert main(["fti"]) == 2
    assert "Did you mean 'fit'?" in capsys.readouterr().err


def test_what_is_near_nothing_has_no_guess():
    assert explained("unrecognized arguments: extra", keys=["data.seed"]) == "unrecognized arguments: extra"
    assert "Did you mean" not in explained("Expected a dot import path string: zzzzzz")
    assert "EmpiricalBayes, " in explained("Expected a dot import path string: zzzzzz")


def test_choices_of_several_types_are_all_named():
    said = explained("Expected a <class 'int'>. Got value: bf16-mixd", UNION)
    assert said == "Expected one of 16-mixed, bf16-mixed, 64, bf16, but got 'bf16-mixd'. Did you mean 'bf16-mixed'?"


def test_the_classes_of_a_protocol_are_known():
    """A class that does not inherit from its protocol has no short name."""
    import caopd.verifiers

    every = {name for name in caopd.verifiers.__all__ if isinstance(getattr(caopd.verifiers, name), type)}
    assert {each.__name__ for each in concrete(Verifier, "caopd")} == every - {"Verifier", "JudgeModel", "ServedModel"}
