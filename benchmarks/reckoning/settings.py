"""Which runs are made: SFT, its export, and every method from it, on every seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from comparing.settings import SDFT
from fits import LAST, Run, fit

SFT_CONFIG = "configs/smollm2_arithmetic_sft.yaml"
CONFIG = "configs/smollm2_arithmetic.yaml"
BASELINE = "SDFT"
METHODS: dict[str, tuple[str, ...]] = {
    "SDFT": (SDFT,),
    "CaOPD on SDFT": (),
    "CaOPD on SDPO": ("--model.method.backbone=SDPO",),
    "RLCR": ("--model.method=RLCR", "--data.round.num_trained_rollouts=null"),
    "CaOPD on SDFT, self-consistency": ("--data.estimator=SelfConsistency",),
}
"""The last has no verifier: that rollouts agree with the teacher stands for that they are right."""
START = "SFT"
"""What all of them start from, itself predicted on every seed."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a call share.

    Attributes:
        options: Further options of ``caopd``, such as the precision.
        sft_options: Further options of the SFT alone.
        fit_options: Further options of the methods alone.
        num_test: Held-out questions of the task that is trained on.
        num_transfer: Questions of every other task.
        processes: Runs at a time.
        with_science: Whether physics questions, of ``{directory}/data``, are predicted, too.
    """

    options: tuple[str, ...] = ()
    sft_options: tuple[str, ...] = ()
    fit_options: tuple[str, ...] = ()
    num_test: int = 1_000
    num_transfer: int = 200
    processes: int = 2
    with_science: bool = False


def sft_run(setting: Setting) -> Run:
    """Return the supervised fine-tuning that all methods start from; its held-out metrics are measured at its end."""
    return fit("sft", [*setting.options, *setting.sft_options], SFT_CONFIG)


def export_run(sft: Run, checkpoint: Path) -> Run:
    """Return the export of its checkpoint to a model directory, ``export`` of the folder of all runs."""
    return Run("export", ("-m", "caopd", "export", str(checkpoint), "{run}"), made_from=sft.fingerprint)


def method_run(method: str, seed: int, setting: Setting, export: Run) -> Run:
    """Return the fit of a method on a seed: of the questions, their order and the rollouts."""
    options = [*_shared(seed, setting), *setting.fit_options, *METHODS[method], "--trainer.limit_val_batches=0", LAST]
    return fit(f"{slug(method)}-{seed}", options, CONFIG, export.fingerprint)


def predict_run(method: str, seed: int, setting: Setting, made_from: Run, checkpoint: Path | None) -> Run:
    """Return the completions of all test questions, of both events; of the start itself without a checkpoint."""
    tasks = [
        f"--data.task.num_test={setting.num_test}",
        f"--data.evaluation.tasks.more_digits.init_args.num_test={setting.num_transfer}",
        f"--data.evaluation.tasks.operators.init_args.num_test={setting.num_transfer}",
        *(f"--data.evaluation.tasks.{name}.init_args.seed={seed}" for name in ("more_digits", "operators")),
    ]
    if setting.with_science:
        files = '{"test": "{directory}/data/science/physics.test.jsonl"}'
        task = f'{{"class_path": "caopd.tasks.ScienceQA", "init_args": {{"source": {{"files": {files}}}}}}}'
        tasks.append(f"--data.evaluation.tasks.science={task}")
    chosen = [] if checkpoint is None else [f"--ckpt_path={checkpoint}", *METHODS[method]]
    arguments = ("-m", "caopd", "predict", "--config", CONFIG, *_shared(seed, setting), *tasks, *chosen)
    places = ("--trainer.default_root_dir={run}", "--predictions.output={run}/predictions.jsonl")
    quiet = "--trainer.enable_progress_bar=false"
    return Run(f"{slug(method)}-{seed}-predicted", (*arguments, *places, quiet), CONFIG, made_from.fingerprint)


def slug(name: str) -> str:
    """Return a name as files have it."""
    return name.replace(",", "").replace(" ", "-").lower()


def _shared(seed: int, setting: Setting) -> list[str]:
    model = "--model.source.name_or_path={directory}/export"
    return [model, f"--data.seed={seed}", f"--data.task.seed={seed}", *setting.options]
