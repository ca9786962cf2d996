"""The data of on-policy distillation: every epoch is one rollout round of the current student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from caopd.confidence import ConfidenceFormat, InlineConfidence
from caopd.distributed import on_first_process, together
from caopd.evaluation import EvaluationConfig
from caopd.files import remove_unfinished
from caopd.methods.estimators import Estimator, MonteCarlo
from caopd.rollouts import AutoEngine, RolloutEngine, Sampling
from caopd.rounds.batches import BatchPlan, RoundBatches
from caopd.rounds.buffer import RoundBuffer
from caopd.rounds.config import RoundConfig
from caopd.rounds.diagnostics import TeacherProbe
from caopd.rounds.groups import GroupSampler
from caopd.rounds.parity import ParityConfig
from caopd.rounds.phases import Phase, PhaseClock, PhaseListener
from caopd.rounds.prompts import Curriculum
from caopd.rounds.round import Round, RoundMaker
from caopd.run_directory import run_directory
from caopd.seeds import derive_seed
from caopd.tasks import Task, check_unique, stages_of
from caopd.training import checks
from caopd.training.collapse import FormatWatch
from caopd.training.held_out_data import HeldOutDataModule
from caopd.training.module import DistillationModule
from caopd.training.resume import raise_limit_of_steps
from caopd.training.round_settings import round_settings
from caopd.training.round_state import RoundProgress, RoundState
from caopd.types import VerifiedGroup
from caopd.verifiers.time_limit import DEFAULT_SECONDS


class RolloutDataModule(HeldOutDataModule):
    """Samples the student's rollouts, verifies them, and makes training samples of them: one round per epoch.

    A round hands the student's weights to the engine, samples G completions of each of the next prompts, verifies them,
    estimates mu_hat, lets the module's method make training samples, and encodes these. Random numbers depend on the
    seed, the round and the prompt alone, so a round is the same for any number of processes and after any interruption.

    Args:
        task: Gives rows, prompts and the verifier; a TaskSequence gives several tasks, one after the other.
        round: Number of prompts and rollouts per round.
        sampling: How training rollouts are sampled, and completions of held-out prompts beside the greedy ones.
        batch_size: Number of sequences in a micro-batch of one process. An optimizer step of one process trains on this
            times ``accumulate_grad_batches`` of the Trainer.
        tokens_per_batch: Largest number of tokens that student or teacher read in a micro-batch, a prompt of several
            sequences counted once. The sequences of a step are then cut into as many micro-batches as that takes,
            groups kept together. None sets no limit.
        estimator: Estimator of mu_hat; None is Monte Carlo, as in the paper.
        confidence: How confidences are asked for, written and read; None is the line ``Confidence: 0.85``.
        engine: Samples completions; ``auto`` takes vLLM where it is installed and the model is not tiny.
        parity: How many completions are compared with the model, and how large a difference stops the run.
        teacher_probe: When the teacher's success under its context is measured; by default never.
        evaluation: Which completions of held-out prompts are judged, and which further tasks are evaluated.
        template_arguments: Arguments of the chat template, for example ``{enable_thinking: false}``.
        verifier_timeout_seconds: How long a verifier, or a reward, may take for one completion. One that takes longer
            is ended, and the completion is left out. None does not limit it, and calls it in the training process.
        keep_rounds: Number of rounds whose rollouts stay in the run directory; None keeps all.
        seed: Seed of the order of prompts and of all rollouts.
    """

    def __init__(
        self,
        task: Task,
        *,
        round: RoundConfig = RoundConfig(),
        sampling: Sampling = Sampling(),
        batch_size: int = 8,
        tokens_per_batch: int | None = None,
        estimator: Estimator | None = None,
        confidence: ConfidenceFormat | None = None,
        engine: RolloutEngine | Literal["auto"] = "auto",
        parity: ParityConfig = ParityConfig(),
        teacher_probe: TeacherProbe = TeacherProbe(),
        evaluation: EvaluationConfig = EvaluationConfig(),
        template_arguments: dict[str, Any] | None = None,
        verifier_timeout_seconds: float | None = DEFAULT_SECONDS,
        keep_rounds: int | None = 2,
        seed: int = 0,
    ) -> None:
        started = AutoEngine() if engine == "auto" else engine
        form = confidence or InlineConfidence()
        arguments = template_arguments or {}
        stages, limit = stages_of(task), verifier_timeout_seconds
        super().__init__(stages, form, started, evaluation, sampling, arguments, seed, limit, parity)
        self.task = task
        self.round = round
        self.batch_size = batch_size
        self.tokens_per_batch = tokens_per_batch
        self.estimator = round.adapted(estimator or MonteCarlo())
        self.teacher_probe = teacher_probe
        self.keep_rounds = keep_rounds
        self.clock = PhaseClock(self._announce, self._tell)
        self.statistics: dict[str, float] = {}
        self._curriculum = Curriculum(self.stages, round.num_prompts_per_round, seed)
        self._progress = RoundProgress()
        self._formats = FormatWatch()
        check_unique([*(stage.name for stage in self.stages), *evaluation.tasks])
        checks.check_settings(keep_rounds)

    def setup(self, stage: str) -> None:
        """Load the splits that the stage needs and check every row before the first rollout.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigError: If trainer, round and batch do not fit together.
            DataError: If a row cannot be used.
            PromptTooLongError: If a prompt or a known context does not fit the model.
        """
        directory = run_directory(self._trainer)  # collective: every process must ask
        self._buffer = RoundBuffer(directory / "rollouts", self.keep_rounds)
        if stage == "fit":
            on_first_process(lambda: remove_unfinished(directory))
        together(lambda: self._load(stage))

    def _load(self, stage: str) -> None:
        if stage == "fit":
            self._setup_training()
        super().setup(stage)

    def _setup_training(self) -> None:
        trainer, model = self._trainer, self._model
        checks.check_trainer(trainer, self.tokens_per_batch)
        self._accumulate = trainer.accumulate_grad_batches
        model.num_steps_per_round = self.check_round(model, self.plan)
        checks.check_stages(self.task, trainer)
        encoder = self._encoder(self.sampling)
        self._curriculum.load(lambda examples: encoder.check(examples, model.method))

    def check_round(self, model: DistillationModule, plan: BatchPlan) -> int:
        """Check that model, round and batches fit together, and return the number of optimizer steps of a round.

        Args:
            model: The module that is trained.
            plan: How the round's samples are shared out.

        Raises:
            ConfigError: They do not.
        """
        checks.check_parts(model.method, self.estimator, self.round.smallest_group)
        checks.check_teacher(model.loss, model.method, self.estimator, self.teacher_probe)
        checks.check_processes(self.round.num_prompts_per_round, plan.world_size)
        num_samples = self.num_samples(model)
        plan.check(num_samples)
        num_steps = plan.num_steps(num_samples)
        narrowed = self.sampling.top_p < 1 or self.sampling.top_k > 0
        model.loss.check_sampling(self.sampling.temperature, narrowed, num_steps)
        checks.check_baseline(model.method, self.round)
        checks.check_greedy(self.sampling, self.round.num_rollouts if model.method.min_rollouts else 0)
        return num_steps

    @property
    def plan(self) -> BatchPlan:
        """How the training samples of a round are shared out to micro-batches, optimizer steps and processes."""
        return BatchPlan(self.batch_size, self._accumulate, self._trainer.world_size, self.tokens_per_batch)

    def num_samples(self, model: DistillationModule) -> int:
        """Return the number of training samples of a round; a method without rollouts makes one of every prompt.

        Args:
            model: The module that is trained.
        """
        return self.round.num_samples if model.method.min_rollouts else self.round.num_prompts_per_round

    def train_dataloader(self) -> RoundBatches:
        """Run the current epoch's rollout round and return this process's micro-batches.

        A run that was interrupted within a round goes on with that round's rollouts, after those it has trained on.
        """
        return together(self._train_batches)

    def _train_batches(self) -> RoundBatches:
        batches = self._round_batches(self._trainer.current_epoch)
        self._model.saving.end_hook(self._trainer)
        return batches

    def _round_batches(self, number: int) -> RoundBatches:
        interrupted = self._progress.interrupted(number, self._trainer.ckpt_path)
        if interrupted is None:
            policies = self._model.policies(self._trainer.global_step)
            prompts, keep = self._curriculum.round(number), partial(self._keep, number)
            return self._batches(self._maker.make(number, prompts, policies, keep))
        self._model.limit_of_steps = raise_limit_of_steps(self._trainer)
        if interrupted.is_finished or self._model.limit_of_steps is not None:
            self._progress.state, self.statistics = interrupted, interrupted.statistics
            return RoundBatches([], interrupted.num_batches)
        num_done = self._trainer.fit_loop.epoch_loop.batch_progress.state_dict()["current"]["processed"]
        interrupted.check_settings(round_settings(self))
        groups = interrupted.groups(Path(str(self._trainer.ckpt_path)))
        self._keep(number, groups)
        made = replace(self._maker.of_groups(number, groups), statistics=interrupted.statistics)
        return self._batches(made, num_done)

    def teardown(self, stage: str) -> None:
        """Give the trainer its own number of micro-batches per step back, and close what was started."""
        if stage == "fit":
            self._trainer.accumulate_grad_batches = self._accumulate
        super().teardown(stage)

    def state_dict(self) -> dict[str, Any]:
        """Return the estimator's state, the number of the round, where its rollouts are, and how far training has got.

        A run that resumes after the round, from a checkpoint that was written at its end, does not need the rollouts.
        """
        progress = self._progress.saved(self._trainer)
        return {"estimator": self.estimator.state_dict()} | ({} if progress is None else {"round": progress})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.estimator.load_state_dict(state_dict["estimator"])
        self._progress = RoundProgress(state_dict.get("round"))

    def _keep(self, number: int, groups: Sequence[VerifiedGroup]) -> None:
        """Write a round's rollouts in the first process, which writes the checkpoints that say the digest."""
        self._digest = on_first_process(lambda: self._buffer.save(number, groups, round_settings(self)))

    def _batches(self, made: Round, num_done: int = 0) -> RoundBatches:
        """Return what is left to train on of this process's micro-batches."""
        self.engine.rest()
        self.statistics = made.statistics
        self._formats.look(made)
        with self.clock("verify"):
            tokenized = made.tokenized(self._encoder(self.sampling))
        model = self._model
        settings = (self._trainer.global_rank, model.loss, self.sampling.temperature, model.packing)
        steps = self.plan.micro_batches(tokenized, *settings)
        batches = [batch for step in steps for batch in step]
        self._trainer.accumulate_grad_batches = max(map(len, steps))  # what a limit of tokens makes of it, this round
        file, shape = str(self._buffer.file(made.number).absolute()), round_settings(self)
        self._progress.state = RoundState(made.number, file, self._digest, shape, len(batches), made.statistics)
        seed = derive_seed(self.seed, "training", made.number, self._trainer.global_rank)
        return RoundBatches(batches[num_done:], num_done, seed)

    @property
    def _maker(self) -> RoundMaker:
        parts = (self._completer(self.clock), self._encoder(self.sampling), self._model.method, self.estimator)
        return RoundMaker(GroupSampler(*parts, self.round, self.sampling), self.teacher_probe)

    def _announce(self, phase: Phase) -> None:
        for callback in self._trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PhaseListener):
                callback.on_phase(phase)
