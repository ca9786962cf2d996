"""caopd: calibration-aware on-policy distillation of language models.

The names that a script uses are here, as in ``from caopd import CaOPD, DistillationModule``. Each is imported when it
is first asked for: torch and transformers take seconds. What is made to be
extended, such as base classes, is in the packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caopd.confidence import InlineConfidence, RLCRConfidence, TagConfidence
    from caopd.errors import CaopdError
    from caopd.evaluation import EvaluationConfig
    from caopd.losses import (
        JSD,
        CrossEntropyLoss,
        DistillationLoss,
        ForwardKL,
        ImportanceSampling,
        PolicyGradientLoss,
        ReverseKL,
        TopK,
        VOPDLoss,
    )
    from caopd.methods import CAR, GRPO, RLCR, SDFT, SDPO, SFT, CaOPD, PlainDistillation
    from caopd.methods.estimators import (
        EmpiricalBayes,
        LeaveOneOut,
        MonteCarlo,
        SelfConsistency,
        Shrinkage,
    )
    from caopd.methods.rewards import Brier, Correctness, Format, MarginSeparated
    from caopd.models import EMA, External, Frozen, LoRA, ModelSource, TrustRegion
    from caopd.rollouts import AutoEngine, Sampling, ServerOptions, TransformersEngine, VLLMEngine, VLLMOptions
    from caopd.rounds.config import AdaptiveBudget, RoundConfig
    from caopd.rounds.diagnostics import TeacherProbe
    from caopd.rounds.parity import ParityConfig
    from caopd.tasks import Arithmetic, DataSource, DrawTask, QuestionAnswering, ScienceQA, Stage, TaskSequence, ToolUse
    from caopd.training.checkpoint_io import AtomicCheckpointIO
    from caopd.training.datamodule import RolloutDataModule
    from caopd.training.defaults import TRAINER_DEFAULTS, default_callbacks
    from caopd.training.left_out import NonFinite
    from caopd.training.module import DistillationModule
    from caopd.verifiers import (
        ExactMatch,
        Judge,
        Mathematics,
        MultipleChoice,
        Numeric,
        ServedModel,
        ShortAnswer,
        ToolCalls,
    )

__version__ = "0.1.0"
__all__ = [
    "CAR",
    "EMA",
    "GRPO",
    "JSD",
    "RLCR",
    "SDFT",
    "SDPO",
    "SFT",
    "TRAINER_DEFAULTS",
    "AdaptiveBudget",
    "Arithmetic",
    "AtomicCheckpointIO",
    "AutoEngine",
    "Brier",
    "CaOPD",
    "CaopdError",
    "Correctness",
    "CrossEntropyLoss",
    "DataSource",
    "DistillationLoss",
    "DistillationModule",
    "DrawTask",
    "EmpiricalBayes",
    "EvaluationConfig",
    "ExactMatch",
    "External",
    "Format",
    "ForwardKL",
    "Frozen",
    "ImportanceSampling",
    "InlineConfidence",
    "Judge",
    "LeaveOneOut",
    "LoRA",
    "MarginSeparated",
    "Mathematics",
    "ModelSource",
    "MonteCarlo",
    "MultipleChoice",
    "NonFinite",
    "Numeric",
    "ParityConfig",
    "PlainDistillation",
    "PolicyGradientLoss",
    "QuestionAnswering",
    "RLCRConfidence",
    "ReverseKL",
    "RolloutDataModule",
    "RoundConfig",
    "Sampling",
    "ScienceQA",
    "SelfConsistency",
    "ServedModel",
    "ServerOptions",
    "ShortAnswer",
    "Shrinkage",
    "Stage",
    "TagConfidence",
    "TaskSequence",
    "TeacherProbe",
    "ToolCalls",
    "ToolUse",
    "TopK",
    "TransformersEngine",
    "TrustRegion",
    "VLLMEngine",
    "VLLMOptions",
    "VOPDLoss",
    "default_callbacks",
]

_NAMES = {
    "caopd.confidence": "InlineConfidence RLCRConfidence TagConfidence",
    "caopd.errors": "CaopdError",
    "caopd.evaluation": "EvaluationConfig",
    "caopd.losses": "JSD CrossEntropyLoss DistillationLoss ForwardKL ImportanceSampling PolicyGradientLoss ReverseKL "
    "TopK VOPDLoss",
    "caopd.methods": "CAR GRPO RLCR SDFT SDPO SFT CaOPD PlainDistillation",
    "caopd.methods.estimators": "EmpiricalBayes LeaveOneOut MonteCarlo SelfConsistency Shrinkage",
    "caopd.methods.rewards": "Brier Correctness Format MarginSeparated",
    "caopd.models": "EMA External Frozen LoRA ModelSource TrustRegion",
    "caopd.rollouts": "AutoEngine Sampling ServerOptions TransformersEngine VLLMEngine VLLMOptions",
    "caopd.rounds.config": "AdaptiveBudget RoundConfig",
    "caopd.rounds.diagnostics": "TeacherProbe",
    "caopd.rounds.parity": "ParityConfig",
    "caopd.tasks": "Arithmetic DataSource DrawTask QuestionAnswering ScienceQA Stage TaskSequence ToolUse",
    "caopd.training.checkpoint_io": "AtomicCheckpointIO",
    "caopd.training.datamodule": "RolloutDataModule",
    "caopd.training.defaults": "TRAINER_DEFAULTS default_callbacks",
    "caopd.training.left_out": "NonFinite",
    "caopd.training.module": "DistillationModule",
    "caopd.verifiers": "ExactMatch Judge Mathematics MultipleChoice Numeric ServedModel ShortAnswer ToolCalls",
}
"""Module -> the names that are taken from it; type checkers read the same list above."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'caopd' has no attribute {name!r}")
    return vars(import_module(_MODULES[name]))[name]


def __dir__() -> list[str]:
    """List the names that are not imported yet, too."""
    return sorted({*globals(), *_MODULES})
