"""Which equal-width bin a stated confidence falls in.

Shapes: N scored completions, M bins.
"""

from __future__ import annotations

import torch
from torch import Tensor


def equal_width_bins(confidence: Tensor, n_bins: int = 10) -> Tensor:
    r"""Return the index of each confidence's equal-width bin; bins are left-closed, the last one is closed.

    .. math::
        b(q) = \max \{ k \in \{0, \dots, M-1\} : q \ge k / M \}

    with :math:`q` a confidence and :math:`M` the number of bins, so 1.0 belongs to the last bin.

    Stated confidences are decimals and sit on the edges. Each edge :math:`k/M` is therefore rounded to the
    float width of ``confidence`` before comparing: a decimal and its edge round to the same number, and 0.3
    opens its bin in float32, bfloat16 and float16 alike. float64 is first rounded to float32, which undoes
    the noise of arithmetic (``0.1 + 0.2`` opens the bin of 0.3).

    Args:
        confidence: ``[N]``, float64, float32, bfloat16 or float16, in [0, 1] (not checked).
        n_bins: M, at least 1 (not checked).

    Returns:
        int64 tensor ``[N]`` with values 0 to M-1.

    Example:
        >>> equal_width_bins(torch.tensor([0.0, 0.29, 0.3, 0.7, 1.0]))
        tensor([0, 2, 3, 7, 9])
    """
    if confidence.dtype == torch.float64:
        confidence = confidence.to(torch.float32)
    steps = torch.arange(1, n_bins, dtype=torch.float64, device=confidence.device)
    inner_edges = (steps / n_bins).to(confidence.dtype)
    # Widening to float32 is exact, and bucketize has no half-width kernel on every device.
    return torch.bucketize(confidence.to(torch.float32), inner_edges.to(torch.float32), right=True)
