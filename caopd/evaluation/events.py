"""The events that a stated confidence can be judged by: which completion of a prompt has to be right?"""

from __future__ import annotations

from dataclasses import dataclass

from caopd.rollouts import Sampling


@dataclass(frozen=True)
class Event:
    """How completions of held-out prompts are drawn, under the name that stands beside every number made of them.

    Attributes:
        name: :data:`caopd.types.GREEDY` or :data:`caopd.types.SAMPLED`.
        sampling: Temperature, top-p, top-k and length limit.
        num_samples: N, the number of completions per prompt.
    """

    name: str
    sampling: Sampling
    num_samples: int = 1
