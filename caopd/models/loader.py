"""Loads student and teacher as a run needs them: whole, in every process."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from caopd.models.ema import make_teacher
from caopd.models.language_model import LanguageModel
from caopd.models.source import ModelSource


class Loader:
    """Loads models, and copies the student.

    Args:
        tokenizer: The student's tokenizer, which encodes prompts and completions for all models.
        compile_backend: The torch backend that compiles the decoder layers of all models; None compiles none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, compile_backend: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._compile_backend = compile_backend

    def load(self, source: ModelSource, change: Callable[[LanguageModel], object] | None = None) -> LanguageModel:
        """Load a model in evaluation mode.

        Args:
            source: Which model it is.
            change: Called with the model before it is compiled; changes it in place.

        Raises:
            ModelError: As :meth:`ModelSource.load_model` does.
            ConfigError: Likewise, or if torch has no such backend.
        """
        model = source.load_model(self.tokenizer)
        if change is not None:
            change(model)
        return self._compiled(model)

    def copy(self, student: LanguageModel) -> LanguageModel:
        """Return a frozen copy of a student that this loader has loaded, in evaluation mode.

        Args:
            student: The student, with its weights.
        """
        return self._compiled(make_teacher(student))

    def _compiled(self, model: LanguageModel) -> LanguageModel:
        if self._compile_backend is not None:
            model.compile_layers(self._compile_backend)
        return model
