"""The teacher: a copy of the student from the start of training, with a rule for what becomes of it, or another model.

Shape suffixes: B sequences, L length, T tokens, V vocabulary, H hidden size of the student.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from caopd.errors import ConfigError, ModelError
from caopd.models.ema import update_teacher
from caopd.models.language_model import LanguageModel
from caopd.models.loader import Loader
from caopd.models.packing import PackedSequences
from caopd.models.source import ModelSource

LEAST_SUSPICIOUS_RATE = 0.9
"""Rate of a moving average from which on it may be meant as the decay, the share of the teacher that stays."""


class Teacher(ABC):
    """Says which model the teacher is, how it changes, and how the teacher's distribution is computed."""

    external: ClassVar[bool] = False
    """Whether the teacher is another model than the student, which can teach without privileged context."""

    def make(self, student: LanguageModel, loader: Loader) -> LanguageModel:
        """Return the teacher's model, frozen and in evaluation mode; by default a copy of the student.

        Args:
            student: The student as it is in memory, sharded where the run shards models.
            loader: Has loaded it, copies it, and loads other models likewise.
        """
        return loader.copy(student)

    def max_length(self) -> float:
        """Return the longest sequence that the teacher takes, in tokens; infinity where it sets no limit."""
        return math.inf

    @abstractmethod
    def update(self, copy: LanguageModel, student: LanguageModel) -> None:
        """Change the teacher's model after an optimizer step, in place.

        Args:
            copy: The teacher's model, which :meth:`make` returned.
            student: The student with its current weights.
        """

    def hidden_and_head(
        self, copy: LanguageModel, student: LanguageModel, sequences: PackedSequences
    ) -> tuple[Tensor, Tensor]:
        """Return, without gradients, hidden states and a head whose products are the teacher's logits.

        Args:
            copy: The teacher's model, which :meth:`make` returned.
            student: The student with its current weights.
            sequences: The sequences as the teacher sees them.
        """
        return copy.hidden_and_head(sequences)


@dataclass(frozen=True)
class EMA(Teacher):
    """A moving average of the student: theta_T <- (1 - rate) theta_T + rate theta after every optimizer step.

    Args:
        rate: Share of the student in each step, in [0, 1]; 0 freezes the teacher, 1 makes it the student.

    Raises:
        ConfigError: If the rate is not in [0, 1].
    """

    rate: float = 0.01

    def __post_init__(self) -> None:
        _check_rate(self)

    def make(self, student: LanguageModel, loader: Loader) -> LanguageModel:
        """Return a copy of the student.

        A step moves a weight by ``rate`` times its distance from the student's. Rounding to the nearest float undoes a
        move of less than half a unit in the last place, so the student must be further away than 1 / (2 rate) units.
        At a rate of 0.01 these are 50: in bfloat16, of 8 bits, 20 to 40 % of the weight, in float32 6e-6 of it.

        Args:
            student: The student as it is in memory.
            loader: Has loaded it, and copies it.

        Raises:
            ConfigError: If the trained weights are too coarse for the copy to follow them. Above a rate of 1/2 no step
                vanishes.
        """
        if LEAST_SUSPICIOUS_RATE <= self.rate < 1:
            rank_zero_warn(
                f"A `model.teacher.rate` of {self.rate} makes the teacher all but the student after every step: it is "
                f"the share of the student, 1 minus what others call the decay. Is {1 - self.rate:.4g} meant?"
            )
        narrow = {weight.dtype for weight in student.parameters() if weight.requires_grad} - {torch.float32}
        if 0 < self.rate <= 0.5 and narrow:
            dtype = narrow.pop()
            units = 1 / (2 * self.rate)
            raise ConfigError(
                "Expected the weights that are trained to be float32, so that the teacher, a moving average, can "
                f"follow them, but they are {dtype}: a step of rate {self.rate} moves it only where the student is "
                f"more than {units:.3g} units in the last place away, up to {units * torch.finfo(dtype).eps:.0%} of a "
                "weight. Set `model.source.dtype` to float32 (and `trainer.precision` to bf16-mixed, which computes in "
                "bfloat16), or `model.teacher` to Frozen or TrustRegion."
            )
        return super().make(student, loader)

    def update(self, copy: LanguageModel, student: LanguageModel) -> None:
        """Move the copy's weights towards the student's."""
        update_teacher(copy, student, self.rate)


@dataclass(frozen=True)
class Frozen(Teacher):
    """The student as it was at the start of training, unchanged."""

    def update(self, copy: LanguageModel, student: LanguageModel) -> None:
        """Leave the copy as it is."""


@dataclass(frozen=True)
class TrustRegion(Teacher):
    """Logits between those of the first and those of the current student (SDPO, arXiv 2601.20802).

    With R the student as it was at the start and S the current one, both reading the teacher's prompt, log T = (1 -
    rate) log R + rate log S + a constant. No gradient flows through S. It takes a second forward pass of the student,
    and memory for both heads side by side.

    Args:
        rate: Share of the student, in [0, 1]; 0 freezes the teacher, 1 makes it the student. The default is the rate of
            the paper's moving average.

    Raises:
        ConfigError: If the rate is not in [0, 1].
    """

    rate: float = 0.05

    def __post_init__(self) -> None:
        _check_rate(self)

    def update(self, copy: LanguageModel, student: LanguageModel) -> None:
        """Leave the copy as it is: it is the fixed end of the interpolation."""

    def hidden_and_head(
        self, copy: LanguageModel, student: LanguageModel, sequences: PackedSequences
    ) -> tuple[Tensor, Tensor]:
        """Return scaled states of both models, side by side [T, 2 H], and both heads likewise [V, 2 H]."""
        reference_TH, reference_head_VH = copy.hidden_and_head(sequences)
        training = student.training
        hidden_TH, head_VH = student.eval().hidden_and_head(sequences)
        student.train(training)
        states = [(1 - self.rate) * reference_TH, self.rate * hidden_TH]
        return torch.cat(states, dim=1), torch.cat([reference_head_VH, head_VH], dim=1)


@dataclass(frozen=True)
class External(Teacher):
    """Another model, frozen, with the student's tokenizer; its hidden size and depth may differ.

    Args:
        source: Which model it is, and how it is loaded.
    """

    source: ModelSource = field(default_factory=ModelSource)
    external = True

    def make(self, student: LanguageModel, loader: Loader) -> LanguageModel:
        """Load the model; where its head is padded beyond the student's, its distribution is over the student's rows.

        Args:
            student: Its head gives the number of rows.
            loader: Loads the model, with the student's tokenizer, which encodes prompts and completions for both.

        Raises:
            ModelError: If its tokenizer has another vocabulary, or its head fewer rows than the student's.
        """
        own, vocabulary = self.source.load_tokenizer(), loader.tokenizer.get_vocab()
        if own.get_vocab() != vocabulary:
            raise ModelError(
                f"Expected the teacher {self.source.name_or_path!r} to have the student's tokenizer, but their "
                f"vocabularies differ ({len(own)} and {len(vocabulary)} tokens): distributions over different tokens "
                "cannot be compared. Choose `model.teacher.source` from the student's family."
            )
        rows = len(student.hf.get_output_embeddings().weight)
        return loader.load(self.source, lambda teacher: self._fit(teacher, rows)).eval()

    def _fit(self, teacher: LanguageModel, rows: int) -> None:
        """Freeze the model, and cut its head to the student's rows."""
        own_rows = len(teacher.hf.get_output_embeddings().weight)
        if own_rows < rows:
            raise ModelError(
                f"Expected the head of the teacher {self.source.name_or_path!r} to have at least as many rows as the "
                f"student's, {rows}, but it has {own_rows}: the student's is padded. Cut its padding "
                "(`resize_token_embeddings` of transformers), save that model, and train it."
            )
        if own_rows > rows:
            teacher.hf.resize_token_embeddings(rows)
        teacher.requires_grad_(False)

    def max_length(self) -> float:
        """Return the length, in tokens, of the longest sequence that the model takes."""
        return self.source.max_length()

    def update(self, copy: LanguageModel, student: LanguageModel) -> None:
        """Leave the model as it is."""


def _check_rate(teacher: EMA | TrustRegion) -> None:
    if not 0 <= teacher.rate <= 1:
        raise ConfigError(f"Expected `rate` of {type(teacher).__name__} to be between 0 and 1, but got {teacher.rate}.")
