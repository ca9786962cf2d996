"""Rollout engines, which sample completions with a model's weights."""

from caopd.rollouts.auto import AutoEngine
from caopd.rollouts.base import RolloutEngine, RolloutRequest, Sampling
from caopd.rollouts.transformers_engine import TransformersEngine
from caopd.rollouts.vllm.engine import VLLMEngine
from caopd.rollouts.vllm.options import ServerOptions, VLLMOptions

__all__ = [
    "AutoEngine",
    "RolloutEngine",
    "RolloutRequest",
    "Sampling",
    "ServerOptions",
    "TransformersEngine",
    "VLLMEngine",
    "VLLMOptions",
]
