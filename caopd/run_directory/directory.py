"""The directory of a run: where it is, and how its ``config.yaml`` and ``metrics.json`` are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from caopd.errors import ConfigError, DataError
from caopd.types import GREEDY, SAMPLED

if TYPE_CHECKING:
    from lightning import Trainer

RUNS = "lightning_logs"
"""Folder of the runs, as Lightning's loggers name it."""
CONFIG, METRICS, STAGES = "config.yaml", "metrics.json", "stages.json"
CSV_LOG = "metrics.csv"
"""Name of the file that Lightning's CSVLogger writes."""
MAX_SETTINGS = 100_000
"""Most values of a config that is read; aliases (``*name``) of a small file can stand for any number."""
EVENTS = (GREEDY, SAMPLED, "vote", "vote_stated")
"""What ``metrics.json`` may hold metrics of: the events, and the vote of several completions."""
Metrics = Mapping[str, float | None]
"""Metric -> value; None where it is undefined."""


@dataclass(frozen=True)
class Measured:
    """What a run measured in one validation.

    Attributes:
        step: Number of optimizer steps that the weights had had.
        events: Name of the event (``greedy``, ``sampled``) -> its metrics.
    """

    step: int
    events: Mapping[str, Metrics]


def run_directory(trainer: Trainer) -> Path:
    """Return the directory of a trainer's run, the same in every process: where Lightning puts ``checkpoints/``.

    ``Trainer.log_dir`` is not that place: for W&B and other loggers all runs share it.

    This is a collective operation: every process must ask.

    Args:
        trainer: The trainer, in its ``setup`` hooks or later.
    """
    return Path(trainer.strategy.broadcast(str(own_run_directory(trainer))))


def own_run_directory(trainer: Trainer) -> Path:
    """Return the run directory as this process knows it; process 0 knows it once its logger has begun.

    It is ``SAVE_DIR/NAME/VERSION`` of the first logger, and ``default_root_dir`` without one.

    Args:
        trainer: Any trainer.
    """
    directory = Path(trainer.default_root_dir)
    if trainer.loggers:
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        directory = Path(logger.save_dir or directory) / str(logger.name) / version
    return directory


def step_folder(step: int) -> str:
    """Return the name of the folder, within a run directory, of what is measured after some optimizer steps.

    Args:
        step: Number of optimizer steps that the weights have had.

    Example:
        >>> step_folder(8)
        'step_000008'
    """
    return f"step_{step:06d}"


def free_folder(folder: Path, is_free: Callable[[Path], bool] = lambda path: not path.exists()) -> Path:
    """Return the folder, or ``FOLDER-run2`` and so on where it is not free.

    Args:
        folder: Folder of a new run, or of what is measured of one.
        is_free: Whether a folder can be taken; by default one that does not exist.
    """
    numbered = (folder if number == 1 else folder.with_name(f"{folder.name}-run{number}") for number in count(1))
    return next(path for path in numbered if is_free(path))


def run_of_checkpoint(checkpoint: Path) -> Path:
    """Return the run directory that a checkpoint belongs to: the folder that it is in, or the one above.

    Args:
        checkpoint: The file, usually in ``checkpoints/`` of the run directory.
    """
    own = checkpoint.resolve().parent
    return own if (own / CONFIG).is_file() else own.parent


def read_config(path: Path) -> dict[str, Any]:
    """Read a config as plain data, without making the objects that it names.

    Args:
        path: A YAML file.

    Raises:
        ConfigError: The file holds no settings.
        OSError: The file cannot be read.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        size = _size(config)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"Expected {path} to be a config in YAML, but it cannot be read: {error}") from error
    if size > MAX_SETTINGS:
        raise ConfigError(
            f"Expected {path} to hold at most {MAX_SETTINGS:,} settings, but its aliases stand for more: drop them."
        )
    if not isinstance(config, dict):
        raise ConfigError(f"Expected {path} to hold settings by name, but got {str(config)[:100]!r}.")
    return config


def _size(value: object, known: dict[int, int] | None = None) -> int:
    """Return how many values a config holds where every alias is written out; of one that holds itself, too many."""
    sizes = {} if known is None else known
    if id(value) not in sizes:
        sizes[id(value)] = MAX_SETTINGS + 1
        inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        sizes[id(value)] = 1 + sum(_size(each, sizes) for each in inside)
    return sizes[id(value)]


def setting(config: Mapping[str, Any], *keys: str) -> Any:  # noqa: ANN401 (whatever the file says)
    """Return a setting of a config, None where it is not given.

    Args:
        config: The config as :func:`read_config` returns it.
        keys: The keys that lead to the setting.

    Example:
        >>> config = {"model": {"source": {"name_or_path": "embedded"}}}
        >>> setting(config, "model", "source", "name_or_path"), setting(config, "data", "task")
        ('embedded', None)
    """
    value: Any = config
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def read_metrics(run: Path) -> tuple[Measured | None, Measured | None]:
    """Read what a run measured before and after training.

    Args:
        run: The run directory.

    Returns:
        The metrics of the first and of the last validation; None for one that was not measured, or without the file.

    Raises:
        DataError: The file is not one that a run writes.
    """
    path = run / METRICS
    if not path.is_file():
        return None, None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _measured(found["initial"]), _measured(found["final"])
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"Expected {path} to hold `initial` and `final` metrics, as `caopd fit` writes them, but it does not "
            f"({type(error).__name__}: {error}). Restore it or remove it."
        ) from error


def _measured(moment: Any) -> Measured | None:  # noqa: ANN401 (whatever the file says)
    """Return a validation that has its step and the metrics of one event at least, or None."""
    if moment is None:
        return None
    events = {name: _checked(metrics) for name, metrics in moment.items() if name != "step"}
    if not events or events.keys() - set(EVENTS):
        raise ValueError(f"the metrics are not those of {', '.join(EVENTS)}")
    if not math.isfinite(moment["step"]):
        raise ValueError("`step` is not finite")
    return Measured(moment["step"], events)


def _checked(metrics: Any) -> Metrics:  # noqa: ANN401 (whatever the file says)
    """Return metrics that have their number of completions."""
    values: dict[str, float | None] = {name: None if value is None else value + 0 for name, value in metrics.items()}
    if values["n"] is None:
        raise ValueError("`n` is null")
    if not all(value is None or math.isfinite(value) for value in values.values()):
        raise ValueError("a value is not finite")
    return values


def class_name(value: Any) -> str:  # noqa: ANN401 (whatever the file says)
    """Return the name of the class that a setting names, alone or together with its arguments.

    Args:
        value: Value of the setting.

    Example:
        >>> class_name({"class_path": "caopd.tasks.DrawTask", "init_args": {}}), class_name("SFT"), class_name(None)
        ('DrawTask', 'SFT', 'unnamed')
    """
    path = value.get("class_path") if isinstance(value, dict) else value
    return str(path).rpartition(".")[2] if path else "unnamed"


def method_name(config: Mapping[str, Any]) -> str:
    """Return the name of a config's method, with that of its backbone where it has one.

    Args:
        config: The config as :func:`read_config` returns it.

    Example:
        >>> backbone = {"class_path": "caopd.methods.SDPO"}
        >>> method = {"class_path": "caopd.methods.CaOPD", "init_args": {"backbone": backbone}}
        >>> method_name({"model": {"method": method}})
        'CaOPD on SDPO'
    """
    method = setting(config, "model", "method")
    backbone = setting(config, "model", "method", "init_args", "backbone")
    return f"{class_name(method)} on {class_name(backbone)}" if backbone else class_name(method)


def run_name(config: Mapping[str, Any], command: str) -> str:
    """Return what a run is called: method, backbone where it has one, task and seed; what is measured says so, too.

    Args:
        config: The config as :func:`read_config` returns it.
        command: ``fit``, ``validate``, ``test`` or ``predict``.

    Example:
        >>> method = {"class_path": "caopd.methods.CaOPD", "init_args": {"backbone": "caopd.methods.SDPO"}}
        >>> config = {"model": {"method": method}, "data": {"task": "caopd.tasks.DrawTask", "seed": 3}}
        >>> run_name(config, "fit"), run_name(config, "test")
        ('CaOPD-SDPO-DrawTask-seed3', 'test-CaOPD-SDPO-DrawTask-seed3')
    """
    method = method_name(config).replace(" on ", "-")
    task, seed = class_name(setting(config, "data", "task")), setting(config, "data", "seed")
    return "-".join([*([] if command == "fit" else [command]), method, task, f"seed{seed}"])
