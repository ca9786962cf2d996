"""Names the runs in the settings of their loggers, before these are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from caopd.run_directory import RUNS, free_folder
from caopd.training.continuing import ContinuedRun

_LOGGERS = "lightning.pytorch.loggers"
_TENSORBOARD, _CSV, _WANDB = (f"{_LOGGERS}.{name}Logger" for name in ("TensorBoard", "CSV", "Wandb"))


def explicit(logger: Any, root: str) -> Any:  # noqa: ANN401 (one of many shapes of the setting)
    """Return the setting of the loggers with Lightning's default logger written out.

    It comes without Lightning's advertisement, and without the constant -1 that TensorBoard would show as `hp_metric`.

    Args:
        logger: ``trainer.logger`` of the config: nothing, one logger, or a list of them.
        root: ``trainer.default_root_dir``, for the default logger.
    """
    if logger is None or logger is True:
        arguments = Namespace(  # type: ignore[no-untyped-call]
            save_dir=root, name=RUNS, version=None, default_hp_metric=False
        )
        return Namespace(class_path=_TENSORBOARD, init_args=arguments)  # type: ignore[no-untyped-call]
    return logger


def with_names(logger: Any, name: str) -> None:  # noqa: ANN401 (one of many shapes of the setting)
    """Give a name to the run in all loggers that have none for it yet: of its folder, or in W&B of what is shown.

    W&B draws the id of a run, and so of its folder, itself: it is unique in all of a project.

    Args:
        logger: What :func:`explicit` returns; changed in place.
        name: What the run is called, see :func:`caopd.run_directory.run_name`.
    """
    for each in _listed(logger):
        arguments = each.init_args
        if each.class_path in (_TENSORBOARD, _CSV) and arguments.get("version") is None:
            folder = Path(arguments.save_dir) / (arguments.get("name") or "")
            arguments.version = free_folder(folder / name).name
        elif each.class_path == _WANDB and arguments.get("name") is None:
            arguments.name = name


def with_run(logger: Any, run: ContinuedRun, goes_on: bool) -> None:  # noqa: ANN401 (one of many shapes)
    """Lead all loggers into the logs of an earlier run, unless they have a version of their own.

    Args:
        logger: What :func:`explicit` returns; changed in place.
        run: The run.
        goes_on: Whether it goes on, so that in TensorBoard events behind its checkpoint count no longer.
    """
    loggers = _listed(logger)
    for number, (each, version) in enumerate(zip(loggers, _versions(run, loggers), strict=True)):
        arguments = each.init_args
        if "version" in arguments and arguments.version is None and arguments.get("id") is None:
            arguments.version = version
            if number == 0:
                _lead(each, run.directory)
        if each.class_path == _TENSORBOARD and goes_on:
            each.dict_kwargs = {**(each.get("dict_kwargs") or {}), "purge_step": run.step}


def called_as_before(directory: Path, root: str) -> Path:
    """Return a run directory relative to the current folder where the setting of its folder is relative, too.

    ``ModelCheckpoint`` knows its best checkpoints again only where their folder has the same name as before.

    Args:
        directory: The run directory, absolute.
        root: Folder of the runs, as it is set.
    """
    here = Path.cwd()
    is_relative = not Path(root).is_absolute() and directory.is_relative_to(here)
    return directory.relative_to(here) if is_relative else directory


def _lead(logger: Namespace, directory: Path) -> None:
    """Let the first logger, which says where the run directory is, say where it is already."""
    arguments = logger.init_args
    folder = called_as_before(directory.absolute(), arguments.get("save_dir") or ".").parent
    if logger.class_path in (_TENSORBOARD, _CSV):
        arguments.save_dir, arguments.name = str(folder.parent), folder.name
    elif logger.class_path == _WANDB and arguments.get("project") in (None, folder.name):
        arguments.save_dir, arguments.project = str(folder.parent), folder.name


def _versions(run: ContinuedRun, loggers: Sequence[Any]) -> Sequence[str | int | None]:
    """Return a name for every logger: the first one gives the run directory its name.

    Those of the others are recorded (W&B, for one, draws its own), unless there are more or fewer loggers now.
    """
    others = run.versions[1:] if len(run.versions) == len(loggers) else [run.directory.name] * (len(loggers) - 1)
    return [run.directory.name, *others][: len(loggers)]


def _listed(logger: Any) -> Sequence[Any]:  # noqa: ANN401 (one of many shapes of the setting)
    return logger if isinstance(logger, list) else [logger] if logger else []
