"""What the metrics of stated confidence share: how torchmetrics treats and plots them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torchmetrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class ConfidenceMetric(Metric):
    """Base of metrics that accumulate ``update(confidence, correct)``.

    Sums are kept in float64 and int64, so that accumulating over batches or processes gives what one pass
    gives. States are replaced, never changed in place: an update under ``torch.inference_mode()`` may be
    followed by one outside of it.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`, such as ``process_group``.
    """

    is_differentiable = False
    full_state_update = False
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)

    @property
    def dtype(self) -> torch.dtype:
        """Of the states, on any device: a process without data joins a gathering with an empty tensor of it."""
        return torch.float64

    def add_count(self, name: str, size: int | None = None) -> None:
        """Register an integer state that is summed over processes.

        Args:
            name: Attribute that holds the state.
            size: Length of the vector, or None for a scalar.
        """
        self.add_state(name, torch.zeros(() if size is None else size, dtype=torch.int64), dist_reduce_fx="sum")

    def add_sum(self, name: str, size: int | None = None) -> None:
        """Register a float64 state that is summed over processes.

        Args:
            name: Attribute that holds the state.
            size: Length of the vector, or None for a scalar.
        """
        self.add_state(name, torch.zeros(() if size is None else size, dtype=torch.float64), dist_reduce_fx="sum")

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Plot one value, or several over the steps that gave them.

        Args:
            val: Result of ``forward`` or ``compute``, or a sequence of results; None computes it.
            ax: Matplotlib axes to draw into.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        return cast("tuple[Figure, Axes]", self._plot(val, ax))


def concatenated(state: list[Tensor] | Tensor, device: torch.device) -> Tensor:
    """Join a list state, which is a tensor after synchronisation and may be empty before any update.

    Args:
        state: The list of float vectors, or their concatenation.
        device: Where to place the result of an empty list.

    Returns:
        float64 vector.

    Example:
        >>> concatenated([torch.tensor([0.5]), torch.tensor([1.0])], torch.device("cpu"))
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    parts = [state] if isinstance(state, Tensor) else state
    if not parts:
        return torch.zeros(0, dtype=torch.float64, device=device)
    return torch.cat(parts).to(torch.float64)
