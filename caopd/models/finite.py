"""Refuses weights that are not finite, wherever they are loaded from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from caopd.errors import ModelError


def check_finite(weights: Mapping[str, Any], what: str, remedy: str) -> None:
    """Raise where weights are NaN or infinite; a collective operation where they are sharded.

    Args:
        weights: Name -> weight; what is no tensor is left aside.
        what: Whose weights they are, for the message.
        remedy: What to do, for the message.

    Raises:
        ModelError: Some are not finite; the message names the first of them.
    """
    bad = [name for name, weight in weights.items() if isinstance(weight, Tensor) and not _is_finite(weight)]
    if bad:
        raise ModelError(
            f"Expected the weights of {what} to be finite, but {len(bad)} of {len(weights)} are not, such as "
            f"{', '.join(bad[:3])}: {remedy}"
        )


def _is_finite(weight: Tensor) -> bool:
    if not weight.is_floating_point() or weight.numel() == 0:
        return True
    largest = torch.linalg.vector_norm(weight.detach(), ord=math.inf)
    return bool(torch.isfinite(largest.full_tensor() if isinstance(largest, DTensor) else largest))
