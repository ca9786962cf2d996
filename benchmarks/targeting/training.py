"""The embedded model, trained in every form; what it states is judged on rollouts that it was not trained on yet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.metrics.functional import brier_score, expected_calibration_error
from caopd.rounds.buffer import load_groups
from caopd.types import VerifiedGroup
from fits import Run, RunFailedError, fit, run_all, run_once
from targeting.forms import ALL, FORMS, LITERAL, UNSOLVED
from targeting.hard_draws import HARD

SIZES = (4, 8)
"""Numbers of rollouts that are trained with."""
PARTS = {"all": None, "hard": (HARD,), "e=3, 4": ("e=3", "e=4"), "e=1, 2": ("e=1", "e=2")}
"""Questions that are judged apart -> their categories."""
LAST_ROUNDS = 10
LOGGED = (
    "rollout/without_weight",
    "rollout/confidence_alone",
    "rollout/stated_optimism",
    "train/teacher_copy_accuracy",
)
_CAOPD = "--model.method={{class_path: {}, init_args: {{backbone: {{class_path: caopd.methods.SDPO}}, {}}}}}"
METHODS = {
    LITERAL: _CAOPD.format("caopd.methods.CaOPD", "calibrate_all: false"),
    UNSOLVED: _CAOPD.format("benchmarks.targeting.forms.UnsolvedGroups", "calibrate_all: true"),
    ALL: _CAOPD.format("caopd.methods.CaOPD", "calibrate_all: true"),
}


def training_run(form: str, num_rollouts: int, num_rounds: int, seed: int) -> Run:
    """Return the quickstart's fit with CaOPD on SDPO, on a task with hard questions; every question is seen once."""
    options = [
        METHODS[form],
        "--data.task=benchmarks.targeting.hard_draws.HardDraws",
        f"--data.task.seed={seed}",
        f"--data.task.num_train={256 * num_rounds}",
        f"--data.seed={seed}",
        f"--data.round.num_rollouts={num_rollouts}",
        f"--data.keep_rounds={LAST_ROUNDS}",
        f"--trainer.max_epochs={num_rounds}",
        f"--trainer.check_val_every_n_epoch={num_rounds}",
        "--data.evaluation.num_examples=500",
        "--trainer.callbacks=null",
        "--trainer.enable_checkpointing=false",
    ]
    return fit(f"{form.replace(' ', '-')}-{num_rollouts}-{seed}", options)


def train(
    directory: Path, sizes: Sequence[int], num_rounds: int, seeds: Sequence[int], jobs: int
) -> list[dict | RunFailedError]:
    """Return how well every form's students are calibrated."""

    def record(form: str, num_rollouts: int, seed: int) -> dict:
        run = training_run(form, num_rollouts, num_rounds, seed)
        return {"form": form, "num_rollouts": num_rollouts, "seed": seed, **run_once(run, directory, judged)}

    wanted = [(form, size, seed) for seed in seeds for size in sizes for form in FORMS]
    return run_all([partial(record, *each) for each in wanted], jobs)


def judged(folder: Path) -> dict:
    """Return the calibration of the completions of a fit's last rounds, and what these rounds logged."""
    groups = [group for file in sorted(folder.rglob("round_*.jsonl")) for group in load_groups(file)]
    (events_file,) = folder.rglob("events.out.tfevents*")
    events = EventAccumulator(str(events_file.parent))
    events.Reload()
    logged = {name: fmean(each.value for each in events.Scalars(name)[-LAST_ROUNDS:]) for name in LOGGED}
    return {"parts": {name: calibration(groups, kinds) for name, kinds in PARTS.items()}, "logged": logged}


def calibration(groups: Sequence[VerifiedGroup], categories: tuple[str, ...] | None) -> dict[str, float]:
    """Return success, stated confidence and errors of all completions of some questions that state one."""
    rollouts = [
        verified
        for group in groups
        if categories is None or group.example.category in categories
        for verified in group.rollouts
    ]
    stating = [each for each in rollouts if each.verdict is not None and each.reading.value is not None]
    confidence = torch.tensor([each.reading.value for each in stating], dtype=torch.float64)
    correct = torch.tensor([bool(each.verdict and each.verdict.correct) for each in stating])
    success, stated = correct.double().mean().item(), confidence.mean().item()
    return {
        "format_adherence": len(stating) / len(rollouts),
        "success": success,
        "confidence": stated,
        "gap": stated - success,
        "ece": expected_calibration_error(confidence, correct).item(),
        "brier": brier_score(confidence, correct).item(),
    }
