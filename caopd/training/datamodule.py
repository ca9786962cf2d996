"""The data of on-policy distillation: every epoch is one rollout round of the current student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule, Trainer

from caopd.confidence import ConfidenceFormat, InlineConfidence
from caopd.distributed import gather_in_order
from caopd.errors import ConfigError, user_code
from caopd.evaluation import EvaluationBatches, EvaluationConfig
from caopd.evaluation.held_out import HeldOut, HeldOutDrawer, load_held_out
from caopd.methods import Method
from caopd.methods.estimators import Estimator, MonteCarlo
from caopd.rollouts import AutoEngine, RolloutEngine, Sampling
from caopd.rollouts.decoding import opens_thought
from caopd.rounds.batches import BatchPlan, RoundBatches
from caopd.rounds.buffer import load_groups, save_groups
from caopd.rounds.completer import Completer
from caopd.rounds.config import RoundConfig, method_statistics, round_statistics, train_samples
from caopd.rounds.diagnostics import TeacherProbe, optimism_bias, stated_optimism
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.groups import GroupDrawer, Policies
from caopd.rounds.parity import ParityConfig
from caopd.rounds.phases import Phase, PhaseClock, PhaseListener
from caopd.rounds.prompts import Curriculum, check_rounds
from caopd.run_directory import run_directory, run_of_checkpoint
from caopd.seeds import derive_seed
from caopd.tasks import Task, TaskSequence, check_unique, stages_of
from caopd.training.checks import check_parts, check_teacher, check_trainer
from caopd.training.module import DistillationModule
from caopd.training.resume import check_plan, num_batches_done
from caopd.types import TrainSample, VerifiedGroup
from caopd.verifiers import Verifier
from caopd.verifiers.verification import Verification


class RolloutDataModule(LightningDataModule):
    """Draws, verifies and revises the student's rollouts; one Lightning epoch trains on one round of them.

    A round: sync the student's weights into the engine, draw G completions for each of the next prompts, verify them,
    estimate mu_hat, let the module's method make training samples, encode them. Random numbers come from the seed, the
    round and the prompt alone, so a round is the same for any number of processes and after any interruption.

    Args:
        task: Rows, prompts and the verifier; or a TaskSequence, one task after the other.
        round: Prompts and rollouts per round.
        sampling: How training rollouts are drawn.
        batch_size: Sequences in a micro-batch of one process.
        estimator: Of mu_hat; None is Monte Carlo, the paper's.
        confidence: How confidences are asked for, written and read; None is the line ``Confidence: 0.85``.
        engine: Draws completions; ``auto`` takes vLLM where it is installed and the model is not tiny.
        parity: How closely an engine with weights of its own is compared with the student.
        teacher_probe: When the teacher's success under its context is measured; by default never.
        evaluation: How held-out prompts are completed, and of which further tasks.
        template_arguments: Passed to the chat template, for example ``{enable_thinking: false}``.
        keep_rounds: How many rounds' rollouts stay in the run directory; None keeps all.
        seed: Of the order of prompts and of all rollouts.
    """

    def __init__(
        self,
        task: Task,
        *,
        round: RoundConfig = RoundConfig(),
        sampling: Sampling = Sampling(),
        batch_size: int = 8,
        estimator: Estimator | None = None,
        confidence: ConfidenceFormat | None = None,
        engine: RolloutEngine | Literal["auto"] = "auto",
        parity: ParityConfig = ParityConfig(),
        teacher_probe: TeacherProbe = TeacherProbe(),
        evaluation: EvaluationConfig = EvaluationConfig(),
        template_arguments: dict[str, Any] | None = None,
        keep_rounds: int | None = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.task = task
        self.stages = stages_of(task)
        self.round = round
        self.sampling = sampling
        self.batch_size = batch_size
        self.estimator = estimator or MonteCarlo()
        self.confidence = confidence or InlineConfidence()
        self.engine: RolloutEngine = AutoEngine() if engine == "auto" else engine
        self.parity = parity
        self.teacher_probe = teacher_probe
        self.evaluation = evaluation
        self.template_arguments = template_arguments or {}
        self.keep_rounds = keep_rounds
        self.seed = seed
        self.clock = PhaseClock(self._announce)
        self.statistics: dict[str, float] = {}
        self._curriculum = Curriculum(self.stages, round.num_prompts_per_round, seed)
        self._held_out: dict[str, list[HeldOut]] = {}
        self._interrupted: dict[str, Any] | None = None
        self._measured: dict[str, float] = {}
        self._round: dict[str, Any] = {}
        self._engine_started = False
        check_unique([*(stage.name for stage in self.stages), *evaluation.tasks])
        if keep_rounds is not None and keep_rounds < 1:
            raise ConfigError(f"Expected `keep_rounds` to be at least 1, or null for all, but got {keep_rounds}.")
        if round.adaptive is not None and self.estimator.num_teacher_rollouts:
            raise ConfigError(
                "Expected an estimator that judges by verdicts with `data.round.adaptive`, but got "
                f"{type(self.estimator).__name__}, which knows nothing before the teacher has answered."
            )

    def setup(self, stage: str) -> None:
        """Load the splits that the stage needs and check every row before the first rollout.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigError: If the trainer or the sizes do not fit together.
            DataError: If a row cannot be used.
            PromptTooLongError: If a prompt or a known context does not fit the model.
        """
        self._run_directory = run_directory(self._trainer)  # a collective operation: every process asks
        if not self._engine_started:
            self.engine.start(self._model.tokenizer)
            self._engine_started = True
        if stage == "fit":
            self._setup_training()
        split = "validation" if stage in ("fit", "validate") else "test"
        self._held_out[split] = load_held_out(self.stages, self.evaluation, split)
        for held_out in self._held_out[split]:
            self._encoder(self.evaluation.sampling).student_prompts(held_out.examples)

    def _setup_training(self) -> None:
        trainer = self._trainer
        check_trainer(trainer)
        check_parts(self._method, self.estimator, self.round.smallest_group)
        if self.round.num_prompts_per_round % trainer.world_size:
            raise ConfigError(
                f"Expected `num_prompts_per_round` = {self.round.num_prompts_per_round} to be a multiple of the number "
                f"of processes, {trainer.world_size}: groups are kept whole."
            )
        self._plan.check(self._num_samples)
        loss, sampling = self._model.loss, self.sampling
        loss.check_sampling(sampling.temperature, sampling.top_p < 1 or sampling.top_k > 0, self.steps_per_round)
        check_teacher(loss, self._method, self.estimator, self.teacher_probe)
        if isinstance(self.task, TaskSequence):
            validates = trainer.limit_val_batches != 0
            check_rounds(self.stages, trainer.max_epochs, trainer.check_val_every_n_epoch if validates else 0)
        encoder = self._encoder(self.sampling)
        self._curriculum.load(lambda examples: encoder.check(examples, self._method))

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps that train on one round."""
        plan = self._plan
        return -(-self._num_samples // (plan.batch_size * plan.accumulate * plan.world_size))

    @property
    def _num_samples(self) -> int:
        """Training samples in a round; a method that trains without rollouts makes one of every prompt."""
        return self.round.num_samples if self._method.min_rollouts else self.round.num_prompts_per_round

    def train_dataloader(self) -> RoundBatches:
        """Run the current epoch's rollout round and return this process's micro-batches.

        A run that was interrupted within a round goes on with that round's rollouts, behind what it trained on.
        """
        number = self._trainer.current_epoch
        # Dropout, where a model has it, then depends on the round alone, as all else does.
        torch.manual_seed(derive_seed(self.seed, "training", number, self._trainer.global_rank))
        interrupted, self._interrupted = self._interrupted, None
        num_done = 0
        if interrupted is not None and interrupted["number"] == number:
            num_done = self._trainer.fit_loop.epoch_loop.batch_progress.state_dict()["current"]["processed"]
            if interrupted["num_batches_done"] == interrupted["num_batches"]:
                self._round = {**interrupted, "file": str(self._file_of(interrupted))}
                self.statistics = self._finished_statistics(interrupted)
                return RoundBatches([], num_done)
            groups, self._measured = self._interrupted_round(interrupted), {}
            self.engine.rest()
        else:
            groups = self._run_round(number)
        digest = self._keep(number, groups)
        pairs = self._train_samples(groups)
        samples, prompts = [sample for sample, _ in pairs], [prompt for _, prompt in pairs]
        self.statistics = self._statistics(groups, samples)
        with self.clock("verify"):
            tokenized = self._encoder(self.sampling).encode(samples, prompts)
        model = self._model
        batches = self._plan.micro_batches(tokenized, self._trainer.global_rank, model.loss, model.student.pad_token_id)
        self._round = {
            "number": number,
            "file": str(self._buffer_file(number).absolute()),
            "digest": digest,
            "plan": asdict(self._plan),
            "num_samples": self._num_samples,
            "num_batches": len(batches),
        }
        return RoundBatches(batches[num_done:], num_done)

    def val_dataloader(self) -> EvaluationBatches:
        """Return the validation split, completed as it is iterated over."""
        return self._evaluation_batches("validation")

    def test_dataloader(self) -> EvaluationBatches:
        """Return the test split, completed as it is iterated over."""
        return self._evaluation_batches("test")

    def predict_dataloader(self) -> EvaluationBatches:
        """Return the test split, completed as it is iterated over."""
        return self._evaluation_batches("test")

    def state_dict(self) -> dict[str, Any]:
        """Return the estimator's state, the round's number, where its rollouts are and how far training got.

        A run that resumes behind the round, as from a checkpoint written at its end, does not need the rollouts.
        """
        loop = self._trainer.fit_loop.epoch_loop
        state: dict[str, Any] = {"estimator": self.estimator.state_dict()}
        if loop.batch_progress.current.ready > 0:
            num_steps = loop.automatic_optimization.optim_progress.optimizer.step.current.completed
            accumulate = self._trainer.accumulate_grad_batches
            num_done = num_batches_done(loop.batch_progress.state_dict(), num_steps, accumulate)
            state["round"] = {**self._round, "num_batches_done": num_done}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.estimator.load_state_dict(state_dict["estimator"])
        self._interrupted = state_dict.get("round")

    def _interrupted_round(self, state: dict[str, Any]) -> list[VerifiedGroup]:
        """Read the rollouts of the round that a checkpoint is from within, where they can be gone on with."""
        check_plan(state, self._plan, self._num_samples)
        return load_groups(self._file_of(state), state["digest"])

    def _file_of(self, state: dict[str, Any]) -> Path:
        """Return where a checkpoint's rollouts are: as it says, or beside it where the run directory was moved."""
        recorded = Path(state["file"])
        beside = run_of_checkpoint(Path(str(self._trainer.ckpt_path))) / recorded.parent.name / recorded.name
        return recorded if recorded.is_file() else beside

    def _finished_statistics(self, state: dict[str, Any]) -> dict[str, float]:
        """Return what a round is judged by that was trained on, but not ended; nothing if its rollouts are gone."""
        file = self._file_of(state)
        if not (self._trainer.fit_loop.restarting and file.is_file()):
            return {}
        groups = load_groups(file, state.get("digest"))
        return self._statistics(groups, [sample for sample, _ in self._train_samples(groups)])

    def _statistics(self, groups: Sequence[VerifiedGroup], samples: Sequence[TrainSample]) -> dict[str, float]:
        return (
            round_statistics(groups, samples)
            | method_statistics(groups, self._method)
            | stated_optimism(groups, self._method)
            | self._measured
        )

    def teardown(self, stage: str) -> None:
        """Close the engine."""
        self.engine.close()
        self._engine_started = False

    def on_exception(self, exception: BaseException) -> None:
        """Close the engine: neither an error nor Ctrl-C leaves a process behind."""
        self.teardown("exception")

    def _run_round(self, number: int) -> list[VerifiedGroup]:
        """Draw this process's share of the round and gather all groups in order."""
        prompts = self._curriculum.round(number)
        if self._method.min_rollouts == 0:
            return self._encoder(self.sampling).undrawn(prompts.examples)
        mine = prompts.share(self._trainer.global_rank, self._trainer.world_size)
        drawer, policies, seeds = self._drawer(mine.verifier), self._policies, mine.seeds
        drawn, self._measured = drawer.draw(policies, mine.examples, seeds)
        taught = None
        if self.teacher_probe.is_due(number):
            own_seeds = [derive_seed(seed, "probe") for seed in seeds]
            taught = drawer.draw_taught(policies, drawn, own_seeds, self.teacher_probe.num_rollouts)
        self.engine.rest()
        groups = gather_in_order(drawn)
        if taught is not None:
            self._measured |= optimism_bias(groups, gather_in_order(taught))
        with user_code(self.estimator, f"round {number}"):
            self.estimator.end_round([[verified.verdict for verified in group.rollouts] for group in groups])
        return groups

    def _drawer(self, verifier: Verifier) -> GroupDrawer:
        return GroupDrawer(
            self._completer(verifier, self.clock),
            self._encoder(self.sampling),
            self._method,
            self.estimator,
            self.round,
            self.sampling,
            self.parity,
        )

    @property
    def _policies(self) -> Policies:
        model = self._model
        teacher = model.teacher if model.loss.needs_teacher else None
        return Policies(model.student, teacher, self._trainer.global_step)

    def _keep(self, number: int, groups: Sequence[VerifiedGroup]) -> str:
        """Write the round's rollouts into the run directory, before anything is trained on them; return the digest."""
        if not self._trainer.is_global_zero:  # process 0 alone writes checkpoints, which say the digest
            return ""
        digest = save_groups(self._buffer_file(number), groups)
        if self.keep_rounds is not None:
            self._buffer_file(number - self.keep_rounds).unlink(missing_ok=True)
        return digest

    def _train_samples(self, groups: Sequence[VerifiedGroup]) -> list[tuple[TrainSample, tuple[int, ...]]]:
        """Return the trained samples of all groups, group by group, each with the prompt that it was drawn from."""
        num_trained = self.round.num_trained_rollouts
        return [
            (sample, group.prompt_ids)
            for group in groups
            for sample in train_samples(self._method, group)[:num_trained]
        ]

    def _evaluation_batches(self, split: str) -> EvaluationBatches:
        config, trainer = self.evaluation, self._trainer
        drawer = HeldOutDrawer(
            lambda verifier: self._completer(verifier, PhaseClock(lambda phase: None)),
            self._encoder(config.sampling),
            self._model.student,
            lambda: int(trainer.global_step),
            (self.seed, split),
        )
        each_task = [drawer.passes(held_out, config, several=split == "test") for held_out in self._held_out[split]]
        passes = [each for passes in each_task for each in passes]
        rank, world_size = trainer.global_rank, trainer.world_size
        return EvaluationBatches(passes, config.batch_size, rank, world_size, on_end=self.engine.rest)

    def _completer(self, verifier: Verifier, clock: PhaseClock) -> Completer:
        verification = Verification(verifier, self.confidence)
        tokenizer, precision = self._model.tokenizer, self._trainer.precision_plugin.forward_context
        return Completer(self.engine, verification, clock, precision, lambda ids: opens_thought(tokenizer, ids))

    def _encoder(self, sampling: Sampling) -> SampleEncoder:
        model = self._model
        return SampleEncoder(
            model.tokenizer, self.confidence, self.template_arguments, model.max_length, sampling.max_new_tokens
        )

    def _buffer_file(self, number: int) -> Path:
        return self._run_directory / "rollouts" / f"round_{number:05d}.jsonl"

    def _announce(self, phase: Phase) -> None:
        for callback in self._trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PhaseListener):
                callback.on_phase(phase)

    @property
    def _plan(self) -> BatchPlan:
        return BatchPlan(self.batch_size, self._trainer.accumulate_grad_batches, self._trainer.world_size)

    @property
    def _trainer(self) -> Trainer:
        if self.trainer is None:
            raise ConfigError(
                "RolloutDataModule works inside a Trainer: pass it as `Trainer.fit(model, datamodule=...)`."
            )
        return self.trainer

    @property
    def _method(self) -> Method:
        return self._model.method

    @property
    def _model(self) -> DistillationModule:
        model = self._trainer.lightning_module
        if not isinstance(model, DistillationModule):
            raise ConfigError(
                "Expected RolloutDataModule to be used with a DistillationModule, but got "
                f"{type(model).__name__}: rollouts come from its student."
            )
        return model
