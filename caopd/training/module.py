"""The LightningModule: student, teacher and training loss. It knows no task, no prompt and no rule of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from transformers import PreTrainedTokenizerBase

from caopd.distributed import gather_in_order, log_alike, together
from caopd.errors import ConfigError, ModelError
from caopd.evaluation import EvaluationBatch, EvaluationScores
from caopd.losses import LossInputs, LossOutput, ModelOutput, TrainingLoss
from caopd.methods import CaOPD, Method
from caopd.models import LanguageModel, Loader, ModelSource, Teacher, check_finite, check_precision
from caopd.rounds.batches import Packing, TokenBatch
from caopd.rounds.groups import Policies
from caopd.training.checkpoints import FORMAT, PACKAGE, check_format, refuse_settings
from caopd.training.collapse import CopyWatch, shown_segments
from caopd.training.companions import loss_for, teacher_for
from caopd.training.finite import DIVERGED, FiniteWeights, check_weights
from caopd.training.left_out import NonFinite
from caopd.training.logging import judged_step, log_round, log_step
from caopd.training.optimizing import (
    Decay,
    OptimizerFactory,
    Schedule,
    check_groups,
    default_optimizer,
    rate_schedule,
    warn_idle,
    weight_groups,
)
from caopd.training.resume import apply_settings, settings_of, settle_loops, validation_is_due
from caopd.training.saving import SavingCallbacks
from caopd.training.sharded_loading import ShardedLoader
from caopd.training.step_guard import StepGuard
from caopd.types import Signal


class DistillationModule(LightningModule):
    """Trains a student on the samples that a method makes of its rollouts, with a teacher where the loss needs one.

    The data module says how many optimizer steps a round has: it sets ``num_steps_per_round`` in its ``setup``.

    Args:
        source: The model that is trained, and how it is loaded.
        method: Makes training samples of verified groups; the data module uses it.
        loss: The loss that is minimised. None takes the default for the signal of the method's samples
            (:data:`caopd.losses.LOSSES`), and so does a loss for another signal, with a warning.
        teacher: The teacher: a copy of the student that follows it as a moving average, stays as it is, or is the
            reference of a trust region; or another model. None is ``EMA(0.01)``, and ``Frozen()`` for the reference of
            policy gradients.
        optimizer: A function that takes the parameters and returns the optimizer; None is ``AdamW(lr=1e-5)``.
        decay: What the optimizer's weight decay is for: all weights that are trained, or ``matrices`` alone, without
            norms, biases and embeddings.
        schedule: Course of the learning rate after the warm-up.
        warmup: Share of all optimizer steps in which the learning rate rises.
        nonfinite: What becomes of an optimizer step whose loss or gradient is not finite.

    Raises:
        ConfigError: If a share is not in [0, 1], a method without privileged context has no other model as its teacher,
            or completions are not the student's samples where the loss needs them.
    """

    load_from_checkpoint: Any = staticmethod(refuse_settings)

    def __init__(
        self,
        source: ModelSource = ModelSource(),
        method: Method = CaOPD(),
        loss: TrainingLoss | None = None,
        teacher: Teacher | None = None,
        optimizer: OptimizerFactory | None = None,
        decay: Decay = "all",
        schedule: Schedule = "cosine",
        warmup: float = 0.1,
        nonfinite: NonFinite = NonFinite(),
    ) -> None:
        super().__init__()
        if not 0 <= warmup <= 1:
            raise ConfigError(f"Expected `warmup` to be between 0 and 1, but got {warmup}.")
        self.source = source
        self.method = method
        self.loss = loss_for(method, loss)
        self.teacher_rule = teacher_for(method, self.loss, teacher)
        self.schedule = schedule
        self.warmup = warmup
        self.nonfinite = nonfinite
        self.num_steps_per_round: int | None = None
        self.optimizer_factory = optimizer or default_optimizer
        self.decay = decay
        self.limit_of_steps: int | None = None
        self.saving = SavingCallbacks()
        self._step = StepGuard(nonfinite)
        self._counted: list[tuple[str, Tensor, Tensor | float]] = []
        self._copies = CopyWatch()
        means = [TOKENS, *self.loss.logged, *(COPIES if method.signal is Signal.CONTEXT else [])]
        self._training_means = torch.nn.ModuleDict({name: MeanMetric() for name in means})
        self.validation_scores = self.test_scores = EvaluationScores(torch.device("cpu"))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.source.load_tokenizer()

    @cached_property
    def max_length(self) -> int:
        """Length, in tokens, of the longest prompt plus completion that both student and teacher take."""
        return int(min(self.source.max_length(), self.teacher_rule.max_length()))

    def setup(self, stage: str) -> None:
        """Refuse a precision that converts batches; a fit begins with no step."""
        check_precision(self.trainer)
        if stage == "fit":
            self._step, self._counted = StepGuard(self.nonfinite), []

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return the callback that refuses weights that are not finite."""
        has_it = any(isinstance(callback, FiniteWeights) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if has_it else [FiniteWeights()]

    def configure_model(self) -> None:
        """Load the student, and make a teacher if there is one; under a sharding strategy both are sharded alike."""
        if hasattr(self, "student"):
            return
        together(self._load_models)

    def _load_models(self) -> None:
        backend, mesh = self.source.torch_compile_backend, self.device_mesh
        loader = Loader(self.tokenizer, backend)
        if mesh is not None:
            device = self.trainer.strategy.root_device
            loader = ShardedLoader(self.tokenizer, backend, mesh["data_parallel"], device)
        self.student: LanguageModel = loader.load(self.source).train()
        if self.loss.needs_teacher:
            self.teacher: LanguageModel = self.teacher_rule.make(self.student, loader)

    def policies(self, version: int) -> Policies:
        """Return the models whose completions a round samples.

        Args:
            version: Number of optimizer steps that the weights have had.
        """
        return Policies(self.student, self.teacher if self.loss.needs_teacher else None, version)

    @property
    def packing(self) -> Packing:
        """How student and teacher read the rows of a micro-batch."""
        teacher = self.teacher.packing_cost if self.loss.needs_teacher else None
        return Packing(self.student.pad_token_id, self.student.packing_cost, teacher)

    def train(self, mode: bool = True) -> DistillationModule:
        """Set the student's mode; the teacher stays in evaluation mode."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load a checkpoint's weights; arguments and result as in torch.

        Raises:
            ModelError: If they belong to another model, or are not finite.
        """
        check_finite(state_dict, "the checkpoint", DIVERGED)
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise ModelError(
                f"Expected the checkpoint to hold the weights of {self.source.name_or_path!r}, but it is of another "
                f"model, or was trained with a teacher where this run has none: compare `model.source`, "
                f"`model.method` and `model.loss` with the config.yaml beside the checkpoint. {str(error)[:400]} ..."
            ) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to write weights that are not finite, and write down where a resumed run goes on.

        Args:
            checkpoint: Changed in place.
        """
        check_weights(self)
        fit_loop, due = checkpoint["loops"]["fit_loop"], validation_is_due(self.trainer)
        saving = self.saving.saved(self.trainer, fit_loop)
        settle_loops(fit_loop, self.trainer.accumulate_grad_batches, due)
        means = gather_in_order([self._training_totals()])
        own = {TRAINING_MEANS: means, SAVING: saving, LEFT_OUT: self._step.state_dict()}
        checkpoint[PACKAGE] = {"format": FORMAT, **own}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums behind a round's logged means, how many steps were left out, and what callbacks did.

        Args:
            checkpoint: The whole checkpoint.

        Raises:
            ConfigError: If another version of the package wrote it.
        """
        check_format(Path(str(self.trainer.ckpt_path)), checkpoint)
        own = checkpoint[PACKAGE]
        if self.trainer.state.fn == TrainerFn.FITTING:
            for saved in checkpoint.get("optimizer_states", ()):
                check_groups(saved["param_groups"], weight_groups(self.student, self.decay))
            self.trainer.num_sanity_val_steps = 0  # the validation before training has been, and is not logged again
        self.saving.restore(own[SAVING])
        self._step.load_state_dict(own[LEFT_OUT])
        # Each process goes on with its own sums: added up in another order, they would round differently.
        for totals in own[TRAINING_MEANS][self.global_rank :: self.trainer.world_size]:
            for name, (total, weight) in totals.items():
                if name in self._training_means:
                    mean = self._mean(name)
                    mean.update(0.0, weight=0.0)
                    mean.mean_value, mean.weight = mean.mean_value + total, mean.weight + weight

    def on_train_start(self) -> None:
        """Give a restored optimizer the settings of this run's config; warn of what that changes, and of idle steps."""
        optimizer, scheduler = self.trainer.optimizers[0], self.trainer.lr_scheduler_configs[0].scheduler
        changed = apply_settings(self._settings, optimizer, cast("LambdaLR", scheduler))
        if changed:
            said = ", ".join(f"{name} {now} (the checkpoint's: {before})" for name, (before, now) in changed.items())
            rank_zero_warn(f"The optimizer goes on with the settings of this run's config: {said}.")
        warn_idle(optimizer, self.trainer.global_step)

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's share of its optimizer step's loss.

        Args:
            batch: Sequences as the student and as the teacher sees them.
            batch_idx: Number of the micro-batch within the round.
        """
        teacher = self._teacher_output(batch)
        inputs = self._loss_inputs(batch)

        def loss_of(hidden_TH: Tensor, head_VH: Tensor) -> LossOutput:
            return self.loss(ModelOutput(hidden_TH, head_VH), teacher, inputs)

        output = self.student(batch.student, loss_of)
        self._count(batch, output, inputs.target_T)
        self._step.add(batch_idx, batch, output.loss)
        # Lightning averages over processes and micro-batches, but the shares of a step add up.
        loss: Tensor = output.loss * (self.trainer.world_size * self.trainer.accumulate_grad_batches)
        return loss

    def _teacher_output(self, batch: TokenBatch) -> ModelOutput | None:
        if not self.loss.needs_teacher:
            return None
        return ModelOutput(*self.teacher_rule.hidden_and_head(self.teacher, self.student, batch.teacher))

    def _loss_inputs(self, batch: TokenBatch) -> LossInputs:
        mask_BC = batch.completion_mask_BC
        return LossInputs(
            weight_T=self.loss.token_weights(mask_BC, batch.weight_BC, batch.denominators),
            confidence_mask_T=batch.confidence_mask_BC[mask_BC],
            target_T=batch.completion_ids_BC[mask_BC],
            sampled_logprob_T=batch.sampled_logprob_BC[mask_BC],
            advantage_T=batch.advantage_B.repeat_interleave(mask_BC.sum(dim=1)),
            temperature=batch.temperature,
            sequence_T=torch.arange(len(mask_BC), device=mask_BC.device).repeat_interleave(mask_BC.sum(dim=1)),
        )

    def _count(self, batch: TokenBatch, output: LossOutput, target_T: Tensor) -> None:
        """Keep what the micro-batch adds to the round's means until its step is done: a repeated step counts once."""
        for name, (total, num_tokens) in output.totals.items():
            self._counted.append((name, total / num_tokens.clamp(min=1), num_tokens))
        for rows in (batch.student, batch.teacher) if self.loss.needs_teacher else (batch.student,):
            self._counted.append((TOKENS, rows.share_of_tokens, rows.num_positions))
        if output.teacher_top1_T is not None:
            shown = shown_segments(batch, output.teacher_top1_T == target_T)
            self._copies.add(shown)
            for name, each in zip(COPIES, (shown, [segment for segment in shown if segment.alone]), strict=True):
                if each:
                    copied_B = target_T.new_tensor([segment.copied for segment in each], dtype=torch.float)
                    self._counted.append((name, copied_B, 1.0))

    def on_train_epoch_end(self) -> None:
        """Log the means of the round; a mean that no token or sequence contributed to is left out."""
        if self.limit_of_steps is not None:
            self.trainer.fit_loop.epoch_loop.max_steps, self.limit_of_steps = self.limit_of_steps, None
        for name in self._training_means:
            mean = self._mean(name)
            mean.update(0.0, 0.0)  # of no weight; torchmetrics warns of a mean that nothing was given
            value = mean.compute()
            if not value.isnan():
                log_round(self, {f"train/{name}": value})
            mean.reset()
        self._copies.end_round(self.current_epoch)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop, or leave the step out, before what is not finite reaches the weights; log the step's loss.

        Args:
            optimizer: The student's optimizer.
        """
        self._step.check(self)
        loss = self.trainer.strategy.reduce(self._step.logged_loss.clone(), reduce_op="sum")
        skipped = self._step.num_left_out
        log_step(self, {"train/loss": loss, **({"train/skipped_steps": float(skipped)} if skipped else {})})

    def optimizer_step(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Step the optimizer, then the teacher: once per optimizer step, however many micro-batches it took."""
        super().optimizer_step(*arguments, **keywords)
        self._step.check_weights(self, self.student)
        self._step.count()
        if not self._step.is_left_out:
            if self.loss.needs_teacher:
                self.teacher_rule.update(self.teacher, self.student)
            for name, value, weight in self._counted:
                self._mean(name).update(value, weight=weight)
        self._counted = []
        self._step.clear()

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Count completed held-out prompts.

        Args:
            batch: Completions with confidences and verdicts.
            batch_idx: Not used.
        """
        self.validation_scores.update(batch)

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Count completed test prompts; arguments as in :meth:`validation_step`."""
        self.test_scores.update(batch)

    def predict_step(self, batch: EvaluationBatch, batch_idx: int) -> EvaluationBatch:
        """Return the completions as they are; arguments as in :meth:`validation_step`."""
        return batch

    def on_validation_epoch_start(self) -> None:
        """Forget the previous validation."""
        self.validation_scores = EvaluationScores(self.device)

    def on_test_epoch_start(self) -> None:
        """Forget the previous test."""
        self.test_scores = EvaluationScores(self.device)

    def on_validation_epoch_end(self) -> None:
        """Log every metric of the validation split."""
        self._log_scores("val", self.validation_scores)

    def on_test_epoch_end(self) -> None:
        """Log every metric of the test split."""
        self._log_scores("test", self.test_scores)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (one of many shapes that Lightning takes)
        """Return the optimizer of the student and its learning-rate schedule."""
        optimizer = self.optimizer_factory(cast("Any", weight_groups(self.student, self.decay)))
        num_steps = self._num_steps()
        schedule = rate_schedule(optimizer, self.schedule, round(self.warmup * num_steps), num_steps)
        self._settings = settings_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _training_totals(self) -> dict[str, tuple[float, float]]:
        """Return the sum and the weight that make each mean of the round so far, in this process."""
        means = {name: self._mean(name) for name in self._training_means}
        return {name: (float(mean.mean_value), float(mean.weight)) for name, mean in means.items() if mean.weight}

    def _mean(self, name: str) -> MeanMetric:
        return cast("MeanMetric", self._training_means[name])

    def _num_steps(self) -> int:
        trainer = self.trainer
        if trainer.max_steps > 0 and (trainer.max_epochs is None or trainer.max_epochs < 1):
            return int(trainer.max_steps)
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise ConfigError(
                f"Expected `max_epochs` (rollout rounds) of the Trainer to be at least 1, but got "
                f"{trainer.max_epochs}: the learning-rate schedule needs an end."
            )
        if self.num_steps_per_round is None:
            raise ConfigError(
                "Expected the data module to set `num_steps_per_round` of the DistillationModule in its `setup`, as "
                "RolloutDataModule does: the learning-rate schedule needs an end."
            )
        steps = int(trainer.max_epochs * self.num_steps_per_round)
        return min(steps, int(trainer.max_steps)) if trainer.max_steps > 0 else steps

    def _log_scores(self, prefix: str, scores: EvaluationScores) -> None:
        values = {f"{prefix}/{name}": value for name, value in scores.flat().items()}
        log_alike(self, values | judged_step(self.trainer))


COPIES = ("teacher_copy_accuracy", "teacher_copy_accuracy_alone")
"""Names under ``train/``: of all sequences that state their context's confidence, of those that train nothing else."""
TOKENS = "share_of_tokens"
"""Name under ``train/``: of the positions that student and teacher read, those that hold a token and not padding."""
TRAINING_MEANS, SAVING, LEFT_OUT = "training_means", "saving", "left_out_steps"
"""Keys, in the package's part of a checkpoint, of the sums that the means of its round are made of, for every process,
of what :class:`SavingCallbacks` keeps, and of the numbers of optimizer steps that were left out."""
