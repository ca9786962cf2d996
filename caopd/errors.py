"""The exceptions that caopd raises on purpose. A message says what was expected, what came, where, and the mend."""

from typing import ClassVar


class CaopdError(Exception):
    """Root of every error that caopd raises on purpose; the command line prints its message without a traceback."""

    exit_status: ClassVar[int] = 2
    """Of the command line: 2 for what can be known to be wrong before it is run, 1 for a run that failed."""


class ConfigError(CaopdError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(CaopdError, ValueError):
    """A file or a row of a data set that cannot be used as it is."""


class PromptTooLongError(CaopdError, ValueError):
    """A prompt or a teacher context that would have to be cut to fit the model."""


class ModelError(CaopdError, ValueError):
    """A model or tokenizer that lacks something that training needs."""


class RolloutError(CaopdError, RuntimeError):
    """Rollouts that cannot be trained on: wrong policy version, or an engine that failed."""

    exit_status = 1


class EngineDiedError(CaopdError, RuntimeError):
    """An inference engine whose process ended; it can be started again."""

    exit_status = 1


class NonFiniteError(CaopdError, ArithmeticError):
    """A loss, a gradient or weights that are not finite."""

    exit_status = 1
