"""Says which run a configuration describes: the same settings are the same run, however long and wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_PARTS = ("seed_everything", "trainer", "model", "data")
_LENGTH = ("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time")
_DEVICES = ("accelerator", "devices", "num_nodes", "plugins", "strategy", "sync_batchnorm", "use_distributed_sampler")
_SHOWN = (
    *("logger", "default_root_dir", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"),
    *("log_every_n_steps", "profiler", "detect_anomaly", "barebones"),
)
_FREE = (
    *(f"trainer.{name}" for name in (*_LENGTH, *_DEVICES, *_SHOWN)),
    "data.keep_rounds",
    "data.engine.init_args.options.tensor_parallel_size",
    "data.engine.init_args.servers",
)
"""Settings that may differ: how long a run is, where it runs, what it shows and what it keeps."""
_CALLBACKS_THAT_ONLY_LOOK = (
    *("DeviceStatsMonitor", "EarlyStopping", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
    *("OnExceptionCheckpoint", "RichModelSummary", "RichProgressBar", "ThroughputMonitor", "Timer", "TQDMProgressBar"),
)
"""Lightning's callbacks that leave training as it is, but for its length."""
MISSING = "not set"


def run_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that make a run the one it is: dotted name -> plain value.

    Left out are limits of length, loggers, devices, checkpoints and what only shows.

    Args:
        config: A subcommand's whole configuration as plain data.

    Example:
        >>> run_settings({"trainer": {"max_epochs": 3, "precision": "32-true"}, "data": {"seed": 0}})
        {'trainer.precision': '32-true', 'data.seed': 0}
    """
    kept = {part: config[part] for part in _PARTS if part in config}
    trainer = kept.get("trainer")
    if isinstance(trainer, Mapping) and trainer.get("callbacks"):
        callbacks = [each for each in trainer["callbacks"] if not _only_looks(each)]
        kept["trainer"] = {**trainer, "callbacks": callbacks}
    return dict(_flat("", kept))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two runs differ: name -> (before, now).

    Args:
        before: Settings of one run, as :func:`run_settings` returns them.
        now: Settings of the other.
    """
    names = dict.fromkeys((*before, *now))
    pairs = {name: (before.get(name, MISSING), now.get(name, MISSING)) for name in names}
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def _only_looks(callback: Any) -> bool:  # noqa: ANN401 (whatever the config says)
    path = callback.get("class_path", "") if isinstance(callback, Mapping) else str(callback)
    module, _, name = path.rpartition(".")
    return module.startswith("lightning.") and name in _CALLBACKS_THAT_ONLY_LOOK


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (whatever the config says)
    if name in _FREE:
        return
    if isinstance(value, Mapping) and value:
        items = ((str(key), each) for key, each in value.items())
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        items = ((str(index), each) for index, each in enumerate(value))
    elif name not in ("trainer.callbacks", "trainer") or value:
        yield name, value
        return
    else:
        return
    for key, each in items:
        yield from _flat(f"{name}.{key}" if name else key, each)
