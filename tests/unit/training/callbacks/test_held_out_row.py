"""Completions of held-out prompts are counted over batches, events and calls of an engine."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.trainer.states import TrainerFn

from caopd.evaluation import EvaluationBatches, Event
from caopd.evaluation.batches import EvaluationPass
from caopd.rollouts import Sampling
from caopd.training.callbacks.held_out_row import HeldOutRow

EVENTS = (Event("greedy", Sampling(temperature=0)), Event("sampled", Sampling(), 3))


def trainer_of(function, num_batches, num_prompts=8, world_size=1, **more):
    """A trainer that iterates over batches of two prompts; its loaders are filled as Lightning fills them."""
    held_out = EvaluationPass(list(range(num_prompts)), lambda examples, event: [], EVENTS)
    loader = EvaluationBatches([held_out], 2, 0, world_size)
    kind = {"test": "test", "predict": "predict"}.get(function.value, "val")
    found = {f"{kind}_dataloaders": loader, f"num_{kind}_batches": num_batches, "sanity_checking": False, **more}
    return SimpleNamespace(state=SimpleNamespace(fn=function), **found)


@pytest.mark.parametrize(
    ("function", "name"),
    [(TrainerFn.FITTING, "validation"), (TrainerFn.TESTING, "test"), (TrainerFn.PREDICTING, "predict")],
)
def test_every_batch_event_and_call_counts_once(function, name):
    row = HeldOutRow(trainer_of(function, [4]))
    assert (row.name, row.total, row.done) == (name, 32, 0)
    counted = []
    for batch in range(4):
        for total in (2, 6):
            for part in (0.5, 1.0, 1.0):
                row.sampled(part * total, total)
                counted.append(row.done)
        row.end_batch(batch)
        counted.append(row.done)
    assert counted == sorted(counted)
    assert counted[:7] == [2, 4, 4, 6, 8, 8, 8]
    assert row.done == 32


def test_a_limited_validation_counts_what_it_completes():
    assert HeldOutRow(trainer_of(TrainerFn.VALIDATING, [2])).total == 16
    checking = trainer_of(TrainerFn.FITTING, [4], sanity_checking=True, num_sanity_val_batches=[1])
    assert HeldOutRow(checking).total == 8


def test_of_two_processes_each_batch_stands_for_both():
    row = HeldOutRow(trainer_of(TrainerFn.TESTING, [2], world_size=2))
    row.end_batch(0)
    assert (row.done, row.total) == (16, 32)


def test_batches_of_another_data_module_have_no_count():
    row = HeldOutRow(trainer_of(TrainerFn.TESTING, [2], test_dataloaders=[1, 2]))
    row.sampled(1, 2)
    row.end_batch(0)
    assert (row.total, row.done, row.words()) == (None, 0.0, "test")
