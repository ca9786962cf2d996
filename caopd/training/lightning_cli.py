"""Lightning's command line for this package's module and data module."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, DefaultHelpFormatter, Namespace  # type: ignore[attr-defined]
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info

from caopd.commands.configs.shipped import config_file
from caopd.errors import ConfigError
from caopd.run_directory import RUNS, free_folder, own_run_directory, run_name, run_settings
from caopd.texts import check_utf8, escaped_lines
from caopd.training.callbacks import (
    PhaseProgressBar,
    ResumeCommand,
    RunConfig,
    RunCurves,
    Unlogged,
    check_alone,
    requeued,
)
from caopd.training.checkpoint_io import AtomicCheckpointIO
from caopd.training.checkpoints import LAST, check_given, check_none_is_taken, check_sharding
from caopd.training.checks import check_gpus
from caopd.training.continued_logs import keep_rows
from caopd.training.continuing import (
    ContinuedRun,
    begun_from,
    find_run,
    judged_run,
    newest_sound,
    run_folders,
    step_of,
)
from caopd.training.datamodule import RolloutDataModule
from caopd.training.defaults import DEFAULT_CALLBACKS, TRAINER_DEFAULTS
from caopd.training.error_messages import message_of
from caopd.training.logger_settings import called_as_before, explicit, with_names, with_run
from caopd.training.module import DistillationModule
from caopd.training.sharded import take_strategy

ABOUT = {
    "fit": """Train a model on its own rollouts.

examples:
  caopd fit --config quickstart                       CaOPD, embedded model, CPU
  caopd fit --config quickstart --model.method=SDFT   any setting can be given
  caopd fit --config one_gpu --config my_data.yaml    the second over the first
  caopd fit --config one_gpu --dry_run                prompts, masks and steps
  caopd fit --config one_gpu --ckpt_path last         go on with it, or start
  caopd fit --model.method.help=CaOPD                 the settings of a class""",
    "validate": """Measure a model on the validation split.

example:
  caopd validate --config quickstart --ckpt_path CKPT""",
    "test": """Measure a model on the test split.

example:
  caopd test --config quickstart --ckpt_path CKPT""",
    "predict": """Write completions with their confidences, as JSON lines.

example:
  caopd predict --config quickstart --ckpt_path CKPT""",
}
"""What ``caopd COMMAND --help`` begins with."""


class HelpAsWritten(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of a description as they are."""


class ConfigByName(ActionConfigFile):
    """Takes a config that comes with the package by its name, too."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ANN401
        """Read a config.

        Args:
            parser: The command's parser.
            cfg: What was read so far; changed in place.
            values: A file, a name, or the config itself.
            option_string: The option as it was given.
        """
        super().__call__(parser, cfg, config_file(values), option_string)  # type: ignore[no-untyped-call]


class CaopdCLI(LightningCLI):
    """LightningCLI with the package's callbacks, and with checkpoints that are checked before they are loaded."""

    _continued: ContinuedRun | None = None
    """The run that goes on with ``ckpt_path=last``, or that is judged."""
    _name: str
    """What a new run is called."""

    def __init__(self, command: str, **settings: Any) -> None:  # noqa: ANN401 (Lightning's own settings)
        self._command = command
        super().__init__(**settings)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Name the given command alone: the parsers of the other three would take as long again each."""
        return {self._command: LightningCLI.subcommands()[self._command]}

    def init_parser(self, **settings: Any) -> LightningArgumentParser:  # noqa: ANN401 (Lightning's own signature)
        """Make a parser whose ``--config`` takes names, too."""
        parser = LightningArgumentParser(**settings)
        parser.add_argument("-c", "--config", action=ConfigByName, help="a YAML file, or a name of `caopd configs`")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401 (Lightning's own)
        """Parse the command line, that of the process where ``args`` is None.

        Raises:
            ConfigError: With the nearest name there is, where one is unknown.
        """
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            keys = self._parser(self._command).get_defaults().keys(branches=True)
            raise ConfigError(message_of(error, list(keys))) from error

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add model and data before Lightning's trainer, as ``--help`` shows them in this order."""
        parser.add_lightning_class_args(DistillationModule, "model")
        parser.add_lightning_class_args(RolloutDataModule, "data")
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks under keys of their own."""
        for key, callback in DEFAULT_CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)

    def _parse_ckpt_path(self) -> None:
        """Take no setting from a checkpoint, as Lightning would: the config alone says what is run, and whose code."""

    def before_instantiate_classes(self) -> None:
        """Find or check the checkpoint before anything is loaded, and check the name of the folder of the runs.

        Raises:
            ConfigError: If there is no checkpoint, it cannot be used, or loggers cannot write into such a folder.
        """
        check_utf8(self._get(self.config, "trainer.default_root_dir") or "", "`trainer.default_root_dir`")
        check_gpus(self._get(self.config, "trainer.accelerator"), self._get(self.config, "trainer.devices"))
        assert self.subcommand is not None
        config, parser = self.config[self.subcommand], self._parser(self.subcommand)
        given, plain = config.clone(), yaml.safe_load(parser.dump(config, skip_none=False))
        settings = run_settings(plain)
        config.weights_only = True  # by default Lightning would load whatever code a file names
        if self.subcommand == "fit" and config.ckpt_path is None and requeued():
            config.ckpt_path = LAST
        if config.ckpt_path == LAST:
            self._find_last(config, run_folders(plain["trainer"]), settings)
            given.ckpt_path = None if self._continued is None else begun_from(self._continued)
        elif config.ckpt_path is not None:
            check_given(config.ckpt_path, self.subcommand == "fit")
        elif SLURMEnvironment.detect():
            check_none_is_taken(Path(config.trainer.default_root_dir or "."))
        if self.subcommand != "fit" and config.ckpt_path is not None:
            self._continued = judged_run(Path(config.ckpt_path), run_folders(plain["trainer"]))
        take_strategy(config.trainer)
        self._name = run_name(plain, "fit" if self._continued else self.subcommand)
        self._name_loggers(config)
        text = parser.dump(given, skip_none=False)
        self.save_config_kwargs = {"text": text, "settings": settings, "continued": self._continued}

    def _name_loggers(self, config: Namespace) -> None:
        """Let the loggers call the run by its name, or lead them into the logs of the run that goes on or is judged."""
        config.trainer.logger = explicit(config.trainer.logger, config.trainer.default_root_dir or ".")
        if self._continued is not None:
            with_run(config.trainer.logger, self._continued, goes_on=self.subcommand == "fit")
        with_names(config.trainer.logger, self._name)

    def _find_last(self, config: Namespace, folders: Sequence[Path], settings: Mapping[str, Any]) -> None:
        """Replace ``last`` by the checkpoint it stands for, and let a run that goes on use its own directory.

        Raises:
            ConfigError: There is no checkpoint to evaluate, none can be used, or all are of other runs.
        """
        below = ", ".join(map(str, folders))
        if self.subcommand != "fit":
            config.ckpt_path = str(newest_sound(folders))
            rank_zero_info(escaped_lines(f"The last checkpoint below {below} is {config.ckpt_path}."))
            return
        self._continued = found = find_run(folders, settings)
        config.ckpt_path = None
        if found is None:
            said = f"No run with these settings below {below} yet: it starts from the beginning."
            rank_zero_info(escaped_lines(said))
            return
        if found.checkpoint is None:
            said = f"The run in {found.directory} has no checkpoint yet: it starts from the beginning."
        else:
            config.ckpt_path = str(found.checkpoint)
            said = f"The run in {found.directory} goes on after optimizer step {found.step}, from {found.checkpoint}."
        rank_zero_info(escaped_lines(said))

    def _before_run(self) -> None:
        """Check the run directory before the logger begins: some begin by deleting files.

        Raises:
            ConfigError: If the strategy cannot load the checkpoint, or the directory holds another run.
        """
        path = self._get(self.config_init, "ckpt_path")
        if path is not None:
            check_sharding(Path(path), self.trainer)
        goes_on = check_alone(own_run_directory(self.trainer), path, self._continued)
        if goes_on:
            warnings.filterwarnings(
                "ignore", message="(Checkpoint|Experiment logs) directory .* exists and is not empty"
            )
            if self.trainer.is_global_zero:
                self._lock()
                keep_rows(self.trainer, self._step_of(path))

    def _lock(self) -> None:
        """Lock the directory of a run that goes on before anything is written there, or rows of its log are moved."""
        if self.subcommand == "fit" or any(isinstance(logger, CSVLogger) for logger in self.trainer.loggers):
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, RunConfig):
                    callback.lock.acquire(own_run_directory(self.trainer))

    def _step_of(self, path: str | None) -> float:
        """Return the step behind which the run logs anew; what is measured of a run changes nothing of its log."""
        if self.subcommand != "fit":
            return math.inf
        return 0 if path is None else step_of(Path(path))

    before_fit = before_validate = before_test = before_predict = _before_run

    def instantiate_classes(self) -> None:
        """Make everything that the config names; a value that a constructor refuses is an error in the config.

        Raises:
            ConfigError: With the constructor's message.
        """
        try:
            super().instantiate_classes()
        except (MisconfigurationException, TypeError, ValueError, RuntimeError, ImportError) as error:
            raise ConfigError(message_of(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 (Lightning's own signature)
        """Make the trainer, with the bar that names phases in place of Lightning's unless bars are off.

        Checkpoints are written whole or not at all, unless the config names a way of its own to write them.

        Where nothing is logged (``fast_dev_run`` takes the logger out, too), the run has a directory nonetheless, and
        where its logger keeps the curves elsewhere, they are in the directory, too.
        """
        given = list(self._get(self.config_init, "trainer.callbacks") or [])  # the trainer adds to this list
        trainer = super().instantiate_trainer(**kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.sort(key=lambda each: not isinstance(each, ResumeCommand))  # first: others may raise on an exception
        if trainer.progress_bar_callback is not None and trainer.progress_bar_callback not in given:
            callbacks[callbacks.index(trainer.progress_bar_callback)] = PhaseProgressBar()
        if all(isinstance(logger, DummyLogger) for logger in trainer.loggers):
            new, run = Path(trainer.default_root_dir) / RUNS / self._name, self._continued
            known = None if run is None else called_as_before(run.directory, trainer.default_root_dir)
            trainer.logger = Unlogged(known or free_folder(new))
        elif self.subcommand == "fit" and not isinstance(trainer.logger, CSVLogger | TensorBoardLogger):
            trainer.loggers = [*trainer.loggers, RunCurves(trainer)]
        return trainer


def settings_of(command: str, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Return what the command line's class is made with.

    Args:
        command: One of Lightning's subcommands.
        callbacks: Those of the run that no config names.
    """
    strict = {"exit_on_error": False, "allow_abbrev": False}
    shown = {"usage": f"caopd {command} [--config NAME_OR_FILE] [--SETTING=VALUE ...]", "description": ABOUT[command]}
    return {
        "model_class": DistillationModule,
        "datamodule_class": RolloutDataModule,
        "trainer_defaults": {**TRAINER_DEFAULTS, "callbacks": list(callbacks)},
        "auto_configure_optimizers": False,
        "save_config_callback": RunConfig,
        "parser_kwargs": {**strict, "formatter_class": HelpAsWritten, command: {**strict, **shown}},
    }
