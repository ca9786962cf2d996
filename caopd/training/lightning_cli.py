"""Lightning's command line for this package's module and data module; it shows an error as one readable message."""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from jsonargparse import ArgumentError
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from transformers.utils import logging as transformers_logging

# Names that may be given without their module, as in `--model.method=SDFT`, are those that are imported here.
import caopd.confidence
import caopd.methods
import caopd.methods.estimators
import caopd.methods.rewards
import caopd.rollouts
import caopd.tasks  # noqa: F401
from caopd.commands.command_line import show_user_error
from caopd.errors import CaopdError, ConfigError, UserCodeError
from caopd.run_directory import own_run_directory
from caopd.texts import check_utf8
from caopd.training.callbacks import PhaseProgressBar, RunConfig, Unlogged, check_alone
from caopd.training.checkpoints import check_checkpoint, check_sharding, newest_checkpoint, run_folders
from caopd.training.class_names import explained
from caopd.training.datamodule import RolloutDataModule
from caopd.training.defaults import DEFAULT_CALLBACKS, TRAINER_DEFAULTS
from caopd.training.interrupts import ignored_interrupts_raised
from caopd.training.module import DistillationModule

LAST = "last"
"""Value of ``ckpt_path`` that stands for the newest checkpoint of any run below the folders of this one."""
OF_LIGHTNING = ("hpc", "registry")
"""Values of ``ckpt_path`` that Lightning itself understands: SLURM's checkpoint, and Lightning's registry."""
MAX_LINES = 20
"""Most lines of an error message, about one screen."""


class CaopdCLI(LightningCLI):
    """LightningCLI with the package's callbacks, and with checkpoints that are checked before they are loaded."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks under keys of their own."""
        for key, callback in DEFAULT_CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)

    def _parse_ckpt_path(self) -> None:
        """Take no setting from a checkpoint, as Lightning would: the config alone says what is run, and whose code."""

    def before_instantiate_classes(self) -> None:
        """Check the checkpoint before anything is loaded, and the name of the folder of the runs.

        Raises:
            ConfigError: If there is no checkpoint, it cannot be used, or loggers cannot write into such a folder.
        """
        check_utf8(self._get(self.config, "trainer.default_root_dir") or "", "`trainer.default_root_dir`")
        path = self._get(self.config, "ckpt_path")
        if path is None or path == LAST or path.partition(":")[0] in OF_LIGHTNING:
            return
        if not (path and Path(path).exists()):
            raise ConfigError(
                f"Expected `ckpt_path` to be a checkpoint file, `{LAST}`, or one of {', '.join(OF_LIGHTNING)}, but "
                f"there is no file {path!r} in {Path.cwd()}. Checkpoints are under `checkpoints/` of a run directory."
            )
        check_checkpoint(Path(path), self.subcommand == "fit")

    def _find_last(self) -> None:
        """Replace ``last`` by the checkpoint it stands for; Lightning itself would look in the new run's folder alone.

        Raises:
            ConfigError: There is no checkpoint to evaluate, or it cannot be used.
        """
        assert self.subcommand is not None
        config = self.config_init[self.subcommand]
        if config.ckpt_path != LAST:
            return
        folders = run_folders(self.trainer)
        path = newest_checkpoint(folders)
        below = ", ".join(str(folder) for folder in dict.fromkeys(folders))
        if path is None and self.subcommand != "fit":
            raise ConfigError(
                f"Expected `ckpt_path={LAST}` to find a checkpoint below {below}, but there is none: give its file, or "
                "`trainer.default_root_dir` of the run."
            )
        if path is None:
            rank_zero_info(f"No checkpoint below {below} yet: the run starts from the beginning.")
        else:
            check_checkpoint(path, self.subcommand == "fit")
            rank_zero_info(f"The last checkpoint below {below} is {path}.")
        config.ckpt_path = path and str(path)

    def _before_run(self) -> None:
        """Find the checkpoint, and check the run directory before the logger begins: some begin by deleting files.

        Raises:
            ConfigError: If there is no checkpoint to find, or the directory holds another run.
        """
        self._find_last()
        path = self._get(self.config_init, "ckpt_path")
        if path is not None:
            check_sharding(Path(path), self.trainer)
        check_alone(own_run_directory(self.trainer), self._get(self.config_init, "ckpt_path"))

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

        Where nothing is logged (``fast_dev_run`` takes the logger out, too), the run has a directory nonetheless.
        """
        given = list(self._get(self.config_init, "trainer.callbacks") or [])  # the trainer adds to this list
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if trainer.progress_bar_callback is not None and trainer.progress_bar_callback not in given:
            callbacks[callbacks.index(trainer.progress_bar_callback)] = PhaseProgressBar()
        if all(isinstance(logger, DummyLogger) for logger in trainer.loggers):
            trainer.logger = Unlogged(Path(trainer.default_root_dir))
        return trainer


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a Lightning subcommand and return the exit status.

    Args:
        arguments: Command line without the program's name; by default that of the process.
    """
    strict = {"exit_on_error": False, "allow_abbrev": False}
    try:
        _ignore_idle_warnings()
        with ignored_interrupts_raised():
            CaopdCLI(
                DistillationModule,
                RolloutDataModule,
                args=None if arguments is None else list(arguments),
                trainer_defaults=TRAINER_DEFAULTS,
                auto_configure_optimizers=False,
                save_config_callback=RunConfig,
                parser_kwargs={**strict, **{command: strict for command in ("fit", "validate", "test", "predict")}},
            )
    except UserCodeError as error:
        return show_user_error(error)
    except (CaopdError, ArgumentError, MisconfigurationException) as error:
        sys.stderr.write(f"error: {message_of(error)}\n")
        return error.exit_status if isinstance(error, CaopdError) else 2
    except (FileNotFoundError, PermissionError, UnpicklingError) as error:
        sys.stderr.write(f"error: a file cannot be read or written: {message_of(error)}\n")
        return 2
    except ValueError as error:
        if not _is_of_lightning(error):
            raise
        sys.stderr.write(f"error: {message_of(error)}\n")
        return 2
    except SIGTERMException:
        return 128 + signal.SIGTERM
    return 0


def message_of(error: BaseException) -> str:
    """Return which setting is wrong, from the outermost error, and why, from the innermost.

    Args:
        error: What was raised, with the chain of its causes.
    """
    causes = list(_causes(error))
    own = [cause for cause in causes if isinstance(cause, CaopdError)]
    if own:
        return str(own[0])
    where, reason = str(error).strip().partition("\n")[0].rstrip(": "), explained(str(causes[-1]).strip())
    lines = (reason if where in reason else f"{where}: {reason}").splitlines()
    return "\n".join([*lines[:MAX_LINES], "`caopd COMMAND --help` shows what every setting takes."])


def _is_of_lightning(error: BaseException) -> bool:
    """Return whether Lightning itself raised the error, as it does where settings do not fit together."""
    frame = None
    for frame, _ in traceback.walk_tb(error.__traceback__):  # noqa: B007  # the last one is looked at
        pass
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("lightning.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _ignore_idle_warnings() -> None:
    """Silence warnings that do not apply: there are no workers, and the teacher is in evaluation mode on purpose."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training.*")
    # The data module resumes a round itself, from the rollouts on disk.
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    transformers_logging.disable_progress_bar()
