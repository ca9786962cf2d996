import math

import pytest
import torch
from transformers import get_scheduler

from caopd.errors import ConfigError
from caopd.training.resume import apply_settings, interrupted_hook, settings_of


def made(rate, decay=0.1, groups=2, kind=torch.optim.AdamW):
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(groups)]
    optimizer = kind([{"params": [weight], "weight_decay": decay + n} for n, weight in enumerate(weights)], lr=rate)
    return optimizer, get_scheduler("cosine", optimizer, 2, 10)


def trained(rate, num_steps=5):
    optimizer, scheduler = made(rate)
    for _ in range(num_steps):
        for group in optimizer.param_groups:
            group["params"][0].grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
    return optimizer.state_dict(), scheduler.state_dict()


def resumed(state, **settings):
    optimizer, scheduler = made(**settings)
    wanted = settings_of(optimizer)
    optimizer.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    return optimizer, scheduler, apply_settings(wanted, optimizer, scheduler)


def test_unchanged_settings_leave_the_checkpoints_state_bit_identical():
    state = trained(1e-3)
    optimizer, scheduler, changed = resumed(state, rate=1e-3)
    assert changed == {}
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in state[0]["param_groups"]]
    assert scheduler.state_dict()["base_lrs"] == state[1]["base_lrs"]


def test_a_new_rate_and_decay_apply_from_the_resume_on():
    optimizer, scheduler, changed = resumed(trained(1e-3), rate=5e-5, decay=0.4)
    assert changed == {"lr": (1e-3, 5e-5), "weight_decay": (1.1, 1.4)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.4, 1.4]
    for step in (5, 6):
        expected = 5e-5 * 0.5 * (1 + math.cos(math.pi * (step - 2) / 8))
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2, rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_schedule_of_another_length_applies_from_the_first_step_on():
    """A run that has come to its end has a rate of 0; one that is lengthened must not begin with it."""
    state = trained(1e-3, num_steps=10)
    assert state[0]["param_groups"][0]["lr"] == 0
    optimizer, _ = made(1e-3)
    scheduler = get_scheduler("cosine", optimizer, 2, 30)
    wanted = settings_of(optimizer)
    optimizer.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    assert apply_settings(wanted, optimizer, scheduler) == {}
    expected = 1e-3 * 0.5 * (1 + math.cos(math.pi * 8 / 28))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2, rel=1e-12)


def test_another_optimizers_state_is_refused():
    optimizer, scheduler = made(1e-3, kind=torch.optim.SGD)
    wanted = settings_of(optimizer)
    optimizer.load_state_dict(trained(1e-3)[0])
    with pytest.raises(ConfigError, match=r"model\.optimizer.*momentum.*but it has.*betas"):
        apply_settings(wanted, optimizer, scheduler)


def loops(epoch, batch, validation=(0, 0, False)):
    """What Lightning saves of its loops: (ready, started, processed, completed) of epoch and batch."""
    names = ("ready", "started", "processed", "completed")
    ready, completed, is_last = validation
    counts = {"ready": ready, "started": ready, "processed": completed, "completed": completed}
    return {
        "epoch_progress": {"current": dict(zip(names, epoch, strict=True))},
        "epoch_loop.batch_progress": {"current": dict(zip(names, batch, strict=True))},
        "epoch_loop.val_loop.batch_progress": {"total": counts, "current": counts, "is_last_batch": is_last},
    }


@pytest.mark.parametrize(
    ("saved", "hook"),
    [
        (loops((1, 1, 0, 0), (3, 3, 2, 2)), None),
        (loops((1, 1, 0, 0), (3, 3, 3, 2)), "on_train_batch_end"),
        (loops((1, 1, 0, 0), (4, 4, 4, 4), (3, 2, False)), None),
        (loops((1, 1, 0, 0), (4, 4, 4, 4), (3, 3, True)), "on_validation_end"),
        (loops((1, 1, 1, 0), (4, 4, 4, 4), (3, 3, True)), "on_train_epoch_end"),
        (loops((1, 1, 1, 1), (4, 4, 4, 4), (3, 3, True)), None),
    ],
    ids=["in a batch", "behind a batch", "in a validation", "behind it", "behind a round", "between rounds"],
)
def test_the_counts_of_the_loops_say_which_hook_was_running(saved, hook):
    assert interrupted_hook(saved) == hook
