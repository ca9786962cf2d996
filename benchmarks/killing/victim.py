"""A callback that kills its own process at a stated place, as ``kill -9`` does: ``CAOPD_KILL=PLACE:COUNT:RANK``.

It is a callback of the config, in every run alike, and does nothing where the variable is not set. Files are watched by
Python's audit hook, which tells of every file that is opened, renamed or removed before it happens.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from lightning import Callback

VARIABLE = "CAOPD_KILL"
HOOKS = {
    "on_train_epoch_start": "round, rollouts kept",
    "on_train_batch_start": "training, before a batch",
    "on_after_backward": "training, behind a gradient",
    "on_before_optimizer_step": "training, before a step",
    "on_train_batch_end": "training, behind a batch",
    "on_validation_start": "validation, before",
    "on_validation_batch_end": "validation, within",
    "on_validation_epoch_end": "validation, measured",
    "on_validation_end": "validation, logged",
    "on_train_epoch_end": "round, trained on",
    "on_train_end": "teardown, training over",
    "on_fit_end": "teardown, before the metrics",
    "teardown": "teardown, before the end",
}
"""Hook of the callback -> place. The callback is the first of the list, so others have not been called yet."""
PHASES = {"sync": "rollout, before", "rollout": "rollout, sampling begins", "verify": "rollout, sampled"}
FILES = {"buffer": (".jsonl", "/rollouts/"), "checkpoint": (".ckpt",), "metrics": ("metrics.json", "stages.json")}
"""Kind of file -> parts of its path, one of which it must hold."""
MOMENTS = ("opened", "half written", "written", "in place")
PLACES = (*HOOKS.values(), *PHASES.values(), *(f"{kind}, {moment}" for kind in FILES for moment in MOMENTS))
_SECONDS_TO_WRITE = 0.001


class Victim(Callback):
    """Counts how often the place is reached that the variable names, and kills the process at the stated time."""

    def __init__(self) -> None:
        place, count, rank = (os.environ.get(VARIABLE) or "::").rsplit(":", 2)
        is_here = place and (not rank or rank == os.environ.get("LOCAL_RANK", "0"))
        self._place = place if is_here else None
        self._left = int(count or 0)
        self._renamed = False
        if is_here and place.partition(",")[0] in FILES:
            sys.addaudithook(self._on_event)

    def on_phase(self, phase: str) -> None:
        """Be told of a phase of a round."""
        self._reach(PHASES.get(phase))

    def _on_event(self, event: str, arguments: tuple) -> None:
        if self._renamed:
            self._renamed = False
            self._reach(self._place)
        if event not in ("open", "os.rename"):
            return
        kind, _, moment = str(self._place).partition(", ")
        path = str(arguments[1] if event == "os.rename" else arguments[0])
        if not any(part in path for part in FILES[kind]):
            return
        if event == "os.rename":
            self._renamed = moment == "in place"
            self._reach(f"{kind}, written")
        elif "w" in str(arguments[1]):
            self._reach(f"{kind}, opened")
            if moment == "half written":
                self._reach(self._place, _SECONDS_TO_WRITE)

    def _reach(self, place: str | None, seconds: float = 0.0) -> None:
        if place is None or place != self._place:
            return
        self._left -= 1
        if self._left == 0 and seconds:
            threading.Timer(seconds, _kill).start()
        elif self._left == 0:
            _kill()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _reaches(place: str):
    def hook(self: Victim, *arguments: object, **keywords: object) -> None:
        self._reach(place)

    return hook


for _name, _hooked in HOOKS.items():
    setattr(Victim, _name, _reaches(_hooked))
