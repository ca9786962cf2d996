"""Decides what becomes of an optimizer step whose loss or gradient is not finite: the run stops, or leaves it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from lightning import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from caopd.distributed import gather_in_order
from caopd.errors import NonFiniteError
from caopd.rounds.batches import TokenBatch
from caopd.run_directory import run_directory
from caopd.training.bad_steps import MicroBatch, save_step
from caopd.training.finite import Problem, advice, has_finite_weights, not_finite, problem_of_step
from caopd.training.left_out import LeftOut, LeftOutBy, NonFinite

MAX_SCALER_SKIPS = 20
"""Most steps in a row that the scaler of 16-bit floats may leave out. Each halves its scale, which begins at 2^16."""
FOLDER = "nonfinite"
"""Folder in the run directory of the micro-batches of bad steps."""


class StepGuard:
    """Holds the micro-batches of the optimizer step in hand, and looks at its loss, its gradient and its weights.

    Args:
        settings: What becomes of a bad step.

    Attributes:
        left_out: How many steps of the run have been left out; a checkpoint keeps it.
    """

    def __init__(self, settings: NonFinite) -> None:
        self.left_out = LeftOut()
        self._settings = settings
        self._micro_batches: list[MicroBatch] = []
        self._left_out_by: LeftOutBy | None = None

    def add(self, number: int, batch: TokenBatch, loss: Tensor) -> None:
        """Take one more micro-batch into the step.

        Args:
            number: Its number within the round.
            batch: The sequences.
            loss: Its share of the step's loss.
        """
        self._micro_batches.append(MicroBatch(number, batch, loss.detach()))

    @property
    def loss(self) -> Tensor:
        """This process's share of the step's loss."""
        return torch.as_tensor(sum(one.loss for one in self._micro_batches))

    @property
    def logged_loss(self) -> Tensor:
        """The same; NaN in a step that ``skip`` leaves out, as otherwise Lightning would log the one before again."""
        return self.loss * torch.nan if self._left_out_by == "setting" else self.loss

    @property
    def num_left_out(self) -> int:
        """Number of steps of the run that have been left out, that in hand among them if it is."""
        return self.left_out.after(self._left_out_by).num_steps

    @property
    def is_left_out(self) -> bool:
        """Whether the step in hand changes nothing."""
        return self._left_out_by is not None

    def check(self, module: LightningModule) -> None:
        """Before the optimizer's step: raise, or take the gradients away, where something is not finite; collective.

        An optimizer of torch passes over weights without a gradient: neither they nor what it keeps of them change.

        Args:
            module: The module, with gradients.

        Raises:
            NonFiniteError: The step is bad and not to be left out, or too many have been.
        """
        problem = problem_of_step(module, self.loss)
        if problem is None:
            return
        if problem.part == "gradient" and _has_scaler(module):
            self._leave_to_scaler(module, problem)
        else:
            self._stop_or_skip(module, problem)
        for weight in module.parameters():
            weight.grad = None

    def check_weights(self, module: LightningModule, student: torch.nn.Module) -> None:
        """After the optimizer's step: raise where weights are not finite; collective.

        Args:
            module: The module.
            student: The part that was trained.

        Raises:
            NonFiniteError: Some are not.
        """
        if not has_finite_weights(module, student):
            raise NonFiniteError(self._error(module, "weights that are not"))

    def count(self) -> None:
        """Count the step, which is over."""
        self.left_out = self.left_out.after(self._left_out_by)

    def clear(self) -> None:
        """Forget the step, and begin another one."""
        self._micro_batches.clear()
        self._left_out_by = None

    def state_dict(self) -> dict[str, int]:
        """Return what a resumed run must know."""
        return asdict(self.left_out)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.left_out = LeftOut(**state)

    def _leave_to_scaler(self, module: LightningModule, problem: Problem) -> None:
        if self.left_out.by_scaler_in_a_row >= MAX_SCALER_SKIPS:
            before = f"like the {MAX_SCALER_SKIPS} steps before it, though each lowered the scale of 16-bit gradients"
            raise NonFiniteError(self._error(module, f"{problem}, {before}"))
        self._left_out_by = "scaler"

    def _stop_or_skip(self, module: LightningModule, problem: Problem) -> None:
        done, limit = self.left_out.by_setting, self._settings.limit
        if self._settings.action == "stop":
            raise NonFiniteError(
                f"{self._error(module, problem)} `model.nonfinite.action: skip` leaves such steps out."
            )
        if done >= limit:
            reached = f", and the run has left out {done} steps, as many as `model.nonfinite.limit` allows"
            raise NonFiniteError(self._error(module, f"{problem}{reached}"))
        self._left_out_by = "setting"
        rank_zero_warn(
            f"{_step_of(module).capitalize()}, has {problem} and is left out: {self._where(module, problem)}. It is "
            f"number {done + 1} of at most {limit} (`model.nonfinite.limit`)."
        )

    def _error(self, module: LightningModule, problem: Problem | str) -> str:
        return (
            f"Expected finite numbers, but {_step_of(module)}, has {problem}: {self._where(module, problem)}. Training "
            f"stops here; the last checkpoint holds the weights of an earlier step. {advice(module.trainer)}"
        )

    def _where(self, module: LightningModule, problem: Problem | str) -> str:
        """Save this process's micro-batches, and say which of the step's is bad and where it is; collective."""
        own = [one.number for one in self._micro_batches]
        bad = [one.number for one in self._micro_batches if not bool(torch.isfinite(one.loss))]
        rank, step = module.trainer.global_rank, module.trainer.global_step
        suspects = [(number, process) for numbers, process in gather_in_order([(bad, rank)]) for number in numbers]
        folder = run_directory(module.trainer) / FOLDER
        failed = self._save(folder / _file(step, rank), module, problem)
        if suspects:
            number, process = suspects[0]
            which = f"the loss of micro-batch {number} of the round, in process {process}, is not finite"
        else:
            process = rank
            which = f"each of its micro-batches, {own[0]} to {own[-1]} of the round, has a finite loss"
        return f"{which}. {failed or f'The sequences are in {folder / _file(step, process)} (`torch.load`)'}"

    def _save(self, path: Path, module: LightningModule, problem: Problem | str) -> str:
        trainer = module.trainer
        facts = {
            "step": trainer.global_step,
            "round": trainer.current_epoch,
            "process": trainer.global_rank,
            "problem": str(problem),
            "gradients_not_finite": not_finite((name, weight.grad) for name, weight in module.named_parameters()),
            "weights_not_finite": not_finite(module.named_parameters()),
        }
        try:
            save_step(path, facts, self._micro_batches)
        except OSError as error:
            return f"The sequences could not be saved in {path} ({error})"
        return ""


def _file(step: int, process: int) -> str:
    return f"step_{step}.rank{process}.pt"


def _step_of(module: LightningModule) -> str:
    return f"optimizer step {module.trainer.global_step}, in round {module.trainer.current_epoch}"


def _has_scaler(module: LightningModule) -> bool:
    """Return whether gradients are scaled: then a step whose gradient overflows lowers the scale, and is no error."""
    plugin = module.trainer.precision_plugin
    return isinstance(plugin, MixedPrecision) and plugin.scaler is not None
