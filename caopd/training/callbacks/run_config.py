"""Saves a run's configuration as ``config.yaml`` in its directory, and checks that no other run is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from caopd.distributed import on_first_process
from caopd.errors import ConfigError
from caopd.files import write_text
from caopd.run_directory import CONFIG, free_folder, run_directory, run_of_checkpoint, step_folder
from caopd.training.callbacks.run_curves import RunCurves
from caopd.training.continuing import RUN, ContinuedRun, run_record
from caopd.training.run_lock import RunLock


class RunConfig(SaveConfigCallback):
    """Lightning's callback, which here writes into the run directory, and never over another run's file.

    A run that goes on from a checkpoint in its own directory is the same run: ``fit`` replaces the file, and what is
    measured of such a checkpoint leaves it as it is: its configuration lies beside its results, as ``test.yaml``. Every
    checkpoint says whose it is. The configuration of a fit is also the hyper-parameters of every logger.

    Attributes:
        results: The folder of what is measured, in the run directory and named by the step: ``step_000008``, or
            ``step_000008-run2`` where the same command has measured there with other settings.

    Args:
        parser: The subcommand's parser.
        config: The subcommand's configuration.
        text: What the file says; None is the configuration.
        settings: The settings that make a run this one.
        continued: The run that goes on, if it was found by its settings, or that is judged.
        keywords: Further arguments of Lightning's callback.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        text: str | None = None,
        settings: Mapping[str, Any] | None = None,
        continued: ContinuedRun | None = None,
        **keywords: Any,  # noqa: ANN401 (Lightning's own signature)
    ) -> None:
        super().__init__(parser, config, **keywords)
        self._text = text
        self._settings = settings or {}
        self._continued = continued
        self._directory = Path()
        self._command = ""
        self.results = Path()
        self.lock = RunLock()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the file; a collective operation.

        Args:
            trainer: The trainer of the run.
            pl_module: Not used.
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigError: Raised in every process, if the directory holds another run.
        """
        if self.already_saved:
            return
        self._directory, self._command = run_directory(trainer), stage
        text = self._text or self.parser.dump(self.config, skip_none=False)
        self.results = on_first_process(lambda: self._save(stage, text))
        for logger in trainer.loggers if stage == "fit" else ():
            logger.log_hyperparams(yaml.safe_load(text))
        self.already_saved = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other processes go on with the run; a validation at the end of a fit is not yet its end."""
        if stage == self._command:
            self.lock.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let other processes go on with the run."""
        self.lock.release()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write down which run the checkpoint is of.

        Args:
            trainer: The trainer of the run.
            pl_module: Not used.
            checkpoint: Changed in place.
        """
        versions = [logger.version for logger in trainer.loggers if not isinstance(logger, RunCurves)]
        checkpoint[RUN] = run_record(self._directory, self._settings, versions)

    def _save(self, stage: str, text: str) -> Path:
        check_alone(self._directory, self.config.get("ckpt_path"), self._continued)
        if stage == "fit":
            self.lock.acquire(self._directory)
        path = self._directory / CONFIG
        if stage == "fit" or not path.exists():
            write_text(path, text)
        return self._directory if stage == "fit" else self._begin_results(f"{TrainerFn(stage).value}.yaml", text)

    def _begin_results(self, name: str, text: str) -> Path:
        """Return the folder of what is measured, with its configuration; the same again replaces what was there."""

        def is_free(folder: Path) -> bool:
            return not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") == text

        step = 0 if self._continued is None else self._continued.step
        folder = free_folder(self._directory / step_folder(step), is_free)
        write_text(folder / name, text)
        return folder


def results_directory(trainer: Trainer) -> Path:
    """Return where what is measured of a run is written; a collective operation.

    Args:
        trainer: The trainer, once the weights are loaded.
    """
    own = [callback.results for callback in trainer.callbacks if isinstance(callback, RunConfig)]  # type: ignore[attr-defined]
    return own[0] if own else run_directory(trainer) / step_folder(trainer.global_step)


def check_alone(
    directory: Path, checkpoint: str | None, continued: ContinuedRun | None = None, file: str = CONFIG
) -> bool:
    """Return whether a run goes on in its directory; raise where it would write over the files of another run.

    Args:
        directory: Directory of the run.
        checkpoint: The checkpoint that the run goes on from; if it is in the same directory, this is the same run.
        continued: The run that goes on, if it was found by its settings.
        file: Name of the file that a run has there.

    Raises:
        ConfigError: The directory holds another run.
    """
    if not (directory / file).exists():
        return False
    same = {continued.directory.resolve()} if continued else set()
    if checkpoint is not None:
        same.add(run_of_checkpoint(Path(checkpoint)))
    if directory.resolve() not in same:
        raise ConfigError(
            f"Expected {directory} to be this run's alone, but it holds the {file} of an earlier one, and the logger "
            "gives both the same name and version: set another `version` of the logger (W&B: `id`) or none, move the "
            "earlier run, or call `wandb.finish()` between W&B's runs in one process. `--ckpt_path=last` goes on with "
            "it, if the settings are the same."
        )
    return True
