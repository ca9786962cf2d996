"""Models: where they are loaded from, and how they are wrapped, averaged and sharded."""

from caopd.models.ema import make_teacher, update_teacher
from caopd.models.finite import check_finite
from caopd.models.language_model import LanguageModel, stop_token_ids
from caopd.models.loader import Loader
from caopd.models.lora import LoRA
from caopd.models.precision import check_precision
from caopd.models.size import ModelSize
from caopd.models.source import EMBEDDED, SMOLLM2, ModelSource
from caopd.models.teacher import EMA, External, Frozen, Teacher, TrustRegion

__all__ = [
    "EMA",
    "EMBEDDED",
    "SMOLLM2",
    "External",
    "Frozen",
    "LanguageModel",
    "LoRA",
    "Loader",
    "ModelSize",
    "ModelSource",
    "Teacher",
    "TrustRegion",
    "check_finite",
    "check_precision",
    "make_teacher",
    "stop_token_ids",
    "update_teacher",
]
