"""Runs made by hand, for what a report shows of them."""

from pathlib import Path

import numpy as np

from caopd.commands.report.collect import RunRecord
from caopd.commands.report.history import History
from caopd.commands.report.sets import RunSet
from caopd.commands.score.predictions import Predictions
from caopd.run_directory import Measured


def predictions(confidence, correct, names=()):
    """Completions, each of a prompt of its own; the prompts are called by the names, if there are any."""
    n = len(correct)
    unknown = np.full(n, -1, np.int8)
    return Predictions(
        np.array(confidence, dtype=np.float64),
        np.array(correct, dtype=bool),
        *(unknown, unknown, np.arange(n), np.full(n, -1), ()),
        prompt_ids={name: index for index, name in enumerate(names)},
    )


def run(name, *, final=None, initial=None, predicted=None, rollouts=None, curves=None, config=None):
    """A run that measured ``final`` after training: event -> metrics."""
    before, after = (None if events is None else Measured(1, events) for events in (initial, final))
    directory = Path(name)
    past = History((), (directory,), None)
    return RunRecord(directory, past, config or {}, before, after, curves or {}, predicted or {}, rollouts)


def seeds(name, *runs):
    """A set of runs, with the seeds 0, 1, ..."""
    config = [{"data": {"seed": seed}} for seed in range(len(runs))]
    return RunSet(name, [run(f"{name}{seed}", config=config[seed], **one) for seed, one in enumerate(runs)])
