"""Rollout engines: who draws the student's completions."""

from caopd.rollouts.base import RolloutEngine, RolloutRequest, Sampling
from caopd.rollouts.transformers_engine import TransformersEngine

__all__ = ["RolloutEngine", "RolloutRequest", "Sampling", "TransformersEngine"]
