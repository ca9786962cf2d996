"""Training methods: each turns a verified group, a prompt's rollouts with their verdicts, into training samples."""

from caopd.methods.base import Distillation, Method
from caopd.methods.caopd import CaOPD
from caopd.methods.grpo import CAR, GRPO, RLCR
from caopd.methods.plain import PlainDistillation
from caopd.methods.sdft import SDFT
from caopd.methods.sdpo import SDPO
from caopd.methods.sft import SFT

__all__ = [
    "CAR",
    "GRPO",
    "RLCR",
    "SDFT",
    "SDPO",
    "SFT",
    "CaOPD",
    "Distillation",
    "Method",
    "PlainDistillation",
]
