"""Completes the held-out prompts of a run with its student, for validation, test and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningDataModule, Trainer

from caopd.confidence import ConfidenceFormat
from caopd.distributed import close_group
from caopd.errors import ConfigError
from caopd.evaluation import EvaluationBatches, EvaluationConfig
from caopd.evaluation.held_out import HeldOut, HeldOutSampler, load_held_out
from caopd.rollouts import RolloutEngine, Sampling
from caopd.rounds.completer import Completer
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.parity import ParityConfig
from caopd.rounds.phases import PhaseClock, ProgressListener
from caopd.tasks import Stage
from caopd.training.checkpoints import refuse_settings
from caopd.training.module import DistillationModule
from caopd.verifiers.time_limit import TimeLimit


class HeldOutDataModule(LightningDataModule):
    """Starts and closes the engine, and completes the prompts of the validation and of the test split.

    Args:
        stages: The tasks that are trained on.
        confidence: How confidences are asked for, written and read.
        engine: The engine that samples completions.
        evaluation: Which completions of held-out prompts are judged, and which further tasks are evaluated.
        sampling: How training rollouts are sampled, and held-out completions of the sampled event with them.
        template_arguments: Arguments of the chat template.
        seed: Seed of all completions.
        verifier_timeout_seconds: How long a verifier may take for one completion; None does not limit it.
        parity: How many completions are compared with the model, and how large a difference stops the run.
    """

    load_from_checkpoint: Any = staticmethod(refuse_settings)

    def __init__(
        self,
        stages: Sequence[Stage],
        confidence: ConfidenceFormat,
        engine: RolloutEngine,
        evaluation: EvaluationConfig,
        sampling: Sampling,
        template_arguments: Mapping[str, object],
        seed: int,
        verifier_timeout_seconds: float | None,
        parity: ParityConfig,
    ) -> None:
        super().__init__()
        self.stages = stages
        self.confidence = confidence
        self.engine = engine
        self.evaluation = evaluation
        self.sampling = sampling
        self.events = evaluation.events(sampling)
        self.template_arguments = template_arguments
        self.seed = seed
        self.limit = TimeLimit(verifier_timeout_seconds)
        self.parity = parity
        self._held_out: dict[str, list[HeldOut]] = {}
        self._engine_started = False

    def setup(self, stage: str) -> None:
        """Start the engine, load the split that the stage needs and check every row of it.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DataError: If a row cannot be used.
            PromptTooLongError: If a prompt does not fit the model.
        """
        if not self._engine_started:
            self.engine.start(self._model.tokenizer)
            self._engine_started = True
        split = "validation" if stage in ("fit", "validate") else "test"
        self._held_out[split] = load_held_out(self.stages, self.evaluation, split)
        for held_out in self._held_out[split]:
            self._held_out_encoder.student_prompts(held_out.examples)

    def val_dataloader(self) -> EvaluationBatches:
        """Return the validation prompts, which are completed during the iteration."""
        return self._evaluation_batches("validation")

    def test_dataloader(self) -> EvaluationBatches:
        """Return the test prompts, which are completed during the iteration."""
        return self._evaluation_batches("test")

    def predict_dataloader(self) -> EvaluationBatches:
        """Return the test prompts, which are completed during the iteration."""
        return self._evaluation_batches("test")

    def teardown(self, stage: str) -> None:
        """Close the engine, the verifiers' process and the process group of rollouts; ``stage`` is not used."""
        self.limit.close()
        self.engine.close()
        self._engine_started = False
        close_group()

    def on_exception(self, exception: BaseException) -> None:
        """Close the engine and the verifiers' process: neither an error nor Ctrl-C leaves a process behind."""
        self.teardown("exception")

    def _evaluation_batches(self, split: str) -> EvaluationBatches:
        trainer, encoder = self._trainer, self._held_out_encoder
        completer = self._completer(PhaseClock(on_progress=self._tell))
        seed = (self.seed, split)
        sampler = HeldOutSampler(completer, encoder, self._model.student, lambda: int(trainer.global_step), seed)
        passes = sampler.passes(self._held_out[split], self.events)
        rank, world_size = trainer.global_rank, trainer.world_size
        return EvaluationBatches(passes, self.evaluation.batch_size, rank, world_size, on_end=self.engine.rest)

    def _tell(self, done: float, total: int) -> None:
        for callback in self._trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ProgressListener):
                callback.on_progress(done, total)

    @property
    def _held_out_encoder(self) -> SampleEncoder:
        return self._encoder(self.events[0].sampling)  # every event has the same limit of length

    def _completer(self, clock: PhaseClock) -> Completer:
        precision = self._trainer.precision_plugin.forward_context
        tokenizer = self._model.tokenizer
        return Completer(self.engine, tokenizer, self.confidence, clock, precision, self.limit, self.parity)

    def _encoder(self, sampling: Sampling) -> SampleEncoder:
        tokenizer, max_length = self._model.tokenizer, self._model.max_length
        return SampleEncoder(tokenizer, self.confidence, self.template_arguments, max_length, sampling.max_new_tokens)

    @property
    def _trainer(self) -> Trainer:
        if self.trainer is None:
            raise ConfigError(
                f"{type(self).__name__} works inside a Trainer: pass it as `Trainer.fit(model, datamodule=...)`."
            )
        return self.trainer

    @property
    def _model(self) -> DistillationModule:
        model = self._trainer.lightning_module
        if not isinstance(model, DistillationModule):
            raise ConfigError(
                f"Expected {type(self).__name__} to be used with a DistillationModule, but got "
                f"{type(model).__name__}: rollouts come from its student."
            )
        return model
