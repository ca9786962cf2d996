"""What ``default_callbacks`` gives a Trainer is what the command line gives its own."""

from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import caopd.training.lightning_cli
from caopd.cli import main
from caopd.training.callbacks import PhaseProgressBar, ResumeCommand, RunConfig, SampleCompletions
from caopd.training.defaults import TRAINER_DEFAULTS, default_callbacks

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"


@pytest.fixture
def trainer_of_the_command_line(monkeypatch, tmp_path):
    """Returns the trainer that the command makes, which does not fit."""

    def make(*arguments):
        made = []

        class Stopped(caopd.training.lightning_cli.CaopdCLI):
            def fit(self, **_):
                made.append(self.trainer)

        monkeypatch.setattr(caopd.training.lightning_cli, "CaopdCLI", Stopped)
        assert main(["fit", f"--config={QUICKSTART}", f"--trainer.default_root_dir={tmp_path}", *arguments]) == 0
        return made[0]

    return make


def own(callbacks):
    """Our callbacks by class, but for those of a command line; with the settings that a constructor gave them."""
    every = [each for each in callbacks if type(each).__module__.startswith("caopd.")]
    ours = [each for each in every if not isinstance(each, RunConfig | ResumeCommand)]
    assert len(ours) == len({type(each) for each in ours})
    return {type(each): {key: value for key, value in vars(each).items() if key[0] != "_"} for each in ours}


def test_the_callbacks_are_the_command_lines(trainer_of_the_command_line):
    there = own(trainer_of_the_command_line().callbacks)
    bar = there.pop(PhaseProgressBar)
    here = own(default_callbacks())
    assert here.pop(PhaseProgressBar).keys() <= bar.keys()
    assert here == there
    assert len(here) == 10


def test_without_a_bar_too(trainer_of_the_command_line):
    there = own(trainer_of_the_command_line("--trainer.enable_progress_bar=false").callbacks)
    assert own(default_callbacks(progress_bar=False)) == there
    Trainer(enable_progress_bar=False, logger=False, callbacks=default_callbacks(progress_bar=False))


def test_a_config_sets_what_the_command_lines_do(trainer_of_the_command_line):
    there = own(trainer_of_the_command_line("--completions.num_prompts=3").callbacks)
    assert there[SampleCompletions]["num_prompts"] == 3


def test_every_call_makes_new_ones():
    first, second = default_callbacks(), default_callbacks()
    assert not {*map(id, first)} & {*map(id, second)}


def test_the_trainers_settings_are_the_command_lines(trainer_of_the_command_line, tmp_path):
    there = trainer_of_the_command_line()
    here = Trainer(**TRAINER_DEFAULTS, default_root_dir=tmp_path, callbacks=default_callbacks())
    for name in TRAINER_DEFAULTS:
        assert getattr(here, name) == getattr(there, name), name
    assert here.num_sanity_val_steps == float("inf")
    assert isinstance(here.callbacks[-1], ModelCheckpoint)


def test_an_exception_is_noted_before_other_callbacks_may_raise(trainer_of_the_command_line):
    """The watch over peers ends a process that has failed alone."""
    assert isinstance(trainer_of_the_command_line().callbacks[0], ResumeCommand)
