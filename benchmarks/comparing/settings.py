"""What is compared: every run's settings, under one budget."""

from __future__ import annotations

from dataclasses import dataclass

from fits import Run, fit

PARTS = ("methods", "rollouts", "divergences", "sizes")
NUM_ROLLOUTS = 8
STEPS_PER_ROUND = 8
"""Optimizer steps of every method, each on an eighth of what the method trains on."""

SFT = "--model.method=SFT"
SDFT = "--model.method=SDFT"
ON_SDPO = "--model.method={class_path: caopd.methods.CaOPD, init_args: {backbone: {class_path: caopd.methods.SDPO}}}"
VOPD = (SDFT, "--model.loss=VOPDLoss", "--model.loss.importance_sampling=ImportanceSampling")
ONE_TRAINED: dict[str, tuple[str, ...]] = {
    "SFT": (SFT,),
    "SDFT": (SDFT,),
    "SDPO": ("--model.method=SDPO",),
    "CaOPD on SDFT": (),
    "CaOPD on SDPO": (ON_SDPO,),
}
"""Methods that see the whole vocabulary at every token: one rollout of a group is trained on."""
ALL_TRAINED: dict[str, tuple[str, ...]] = {
    "vOPD": VOPD,
    **{name: (f"--model.method={name}",) for name in ("GRPO", "RLCR", "CAR")},
    "CAR, unscaled": ("--model.method=CAR", "--model.method.scale_by_std=false"),
}
"""Policy gradients, which see the sampled token alone: all rollouts of a group are trained on."""
METHODS = {**ONE_TRAINED, **ALL_TRAINED}
CAOPD = "CaOPD on SDFT"

NUMBERS_OF_ROLLOUTS = (1, 2, 4, 8, 16, 32)
DIVERGENCES = {
    "forward / forward": ("ForwardKL", "ForwardKL"),
    "reverse / reverse": ("ReverseKL", "ReverseKL"),
    "reverse / forward": ("ReverseKL", "ForwardKL"),
    "forward / reverse": ("ForwardKL", "ReverseKL"),
}
"""Divergence of the body / of the confidence; the first is the quickstart's."""
WIDTHS = (32, 48, 64, 96, 128)
SHIPPED_WIDTH = 64
"""Of the embedded model; the other sizes are made here, by the same warm start."""


@dataclass(frozen=True)
class Budget:
    """What every run may use.

    Attributes:
        num_rounds: Rollout rounds.
        num_prompts: Prompts a round.
        num_held_out: Held-out questions of every validation.
        curve_points: Validations after the first, where curves are sampled.
        warm_start_steps: Optimizer steps that make a model of another size.
    """

    num_rounds: int = 50
    num_prompts: int = 256
    num_held_out: int = 2_000
    curve_points: int = 5
    warm_start_steps: int = 800

    def options(self, num_trained: int | None, num_rollouts: int = NUM_ROLLOUTS, curves: bool = False) -> list[str]:
        """Return the options that all runs share, for a number of trained rollouts a prompt (None: all)."""
        sequences = self.num_prompts * (num_trained or num_rollouts)
        every = max(1, self.num_rounds // self.curve_points) if curves else self.num_rounds
        return [
            f"--trainer.max_epochs={self.num_rounds}",
            f"--trainer.check_val_every_n_epoch={every}",
            "--trainer.callbacks=null",  # no checkpoints: a run takes a minute or two
            "--trainer.enable_checkpointing=false",
            f"--data.round.num_prompts_per_round={self.num_prompts}",
            f"--data.round.num_rollouts={num_rollouts}",
            f"--data.round.num_trained_rollouts={'null' if num_trained is None else num_trained}",
            f"--data.batch_size={max(1, sequences // STEPS_PER_ROUND)}",
            f"--data.task.num_train={max(self.num_prompts, self.num_rounds * self.num_prompts)}",
            f"--data.evaluation.num_examples={self.num_held_out}",
            "--data.keep_rounds=1",
        ]


@dataclass(frozen=True)
class Entry:
    """A run of the comparison.

    Attributes:
        part: Which question it answers, one of ``PARTS``.
        setting: The method, G, the divergences, or the size and the method.
        seed: Of the questions, their order and all rollouts.
        run: How it is made.
        width: Of the model.
    """

    part: str
    setting: str
    seed: int
    run: Run
    width: int = SHIPPED_WIDTH

    def record(self, found: dict) -> dict:
        """Return the run's record with what it stands for."""
        return {"part": self.part, "setting": self.setting, "width": self.width, "seed": self.seed, **found}


def method_entries(methods: tuple[str, ...], seeds: tuple[int, ...], budget: Budget) -> list[Entry]:
    """Return the runs of the main table, seed by seed."""
    entries = []
    for seed in seeds:
        for method in methods:
            shared = budget.options(1 if method in ONE_TRAINED else None, curves=True)
            run = _fit(f"{_slug(method)}-{seed}", seed, shared, METHODS[method])
            entries.append(Entry("methods", method, seed, run))
    return entries


def rollout_entries(numbers: tuple[int, ...], seeds: tuple[int, ...], budget: Budget) -> list[Entry]:
    """Return CaOPD with other G than the main table's: the same prompts and steps, G times as many rollouts."""
    return [
        Entry("rollouts", str(g), seed, _fit(f"rollouts-{g}-{seed}", seed, budget.options(1, num_rollouts=g), ()))
        for seed in seeds
        for g in numbers
        if g != NUM_ROLLOUTS
    ]


def divergence_entries(seeds: tuple[int, ...], budget: Budget) -> list[Entry]:
    """Return CaOPD with other divergences than the main table's."""
    entries = []
    for seed in seeds:
        for name, (body, confidence) in list(DIVERGENCES.items())[1:]:
            options = (f"--model.loss.body={body}", f"--model.loss.confidence={confidence}")
            run = _fit(f"divergence-{_slug(name)}-{seed}", seed, budget.options(1), options)
            entries.append(Entry("divergences", name, seed, run))
    return entries


def warm_start(width: int, budget: Budget) -> Run:
    """Return the run that makes the embedded architecture of another width, warm-started."""
    arguments = ("-m", "caopd.training.warm_start", f"--width={width}", f"--num_steps={budget.warm_start_steps}")
    return Run(f"width-{width}", (*arguments, "--output={run}"))


def size_entries(widths: tuple[int, ...], seeds: tuple[int, ...], budget: Budget) -> list[Entry]:
    """Return SDFT and CaOPD on the sizes that are made here."""
    entries = []
    for width in (each for each in widths if each != SHIPPED_WIDTH):
        source = f"--model.source.name_or_path={{directory}}/width-{width}"
        for seed in seeds:
            for method in ("SDFT", CAOPD):
                options = (source, *METHODS[method])
                made_from = warm_start(width, budget).fingerprint
                name = f"width-{width}-{_slug(method)}-{seed}"
                run = _fit(name, seed, budget.options(1), options, made_from)
                entries.append(Entry("sizes", method, seed, run, width))
    return entries


def _fit(name: str, seed: int, shared: list[str], options: tuple[str, ...], made_from: str = "") -> Run:
    seeds = [f"--data.seed={seed}", f"--data.task.seed={seed}"]
    return fit(name, [*seeds, *shared, *options], made_from=made_from)


def _slug(name: str) -> str:
    return name.replace(" / ", "-").replace(", ", "-").replace(" ", "-").lower()
