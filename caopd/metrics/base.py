"""Base classes of the metrics of stated confidence, as torchmetrics treats and plots them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from caopd.metrics.bins import ReliabilityBins
from caopd.metrics.catalogue import CATALOGUE
from caopd.metrics.engine import value_of
from caopd.metrics.functional.counts import ValueCounts, merged, value_counts
from caopd.metrics.functional.validation import FLOAT_WIDTHS, check_pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BATCHES = 100
"""After so many batches, the counts of equal confidences are added up."""


class ConfidenceMetric(Metric):
    """Base of the metrics of this package; subclasses accumulate what ``update`` is given.

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
        """Dtype of the states. A process without data takes part in gathering with an empty tensor of this dtype."""
        return torch.float64

    def add_count(self, name: str, size: int | None = None) -> None:
        """Register an integer state that is summed over processes.

        Args:
            name: Attribute that holds the state.
            size: Length of the vector, or None for a scalar.
        """
        self.add_state(name, torch.zeros(() if size is None else size, dtype=torch.int64), dist_reduce_fx="sum")

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Plot one value, or several over the steps that gave them.

        Args:
            val: Result of ``forward`` or ``compute``, or a sequence of results; None computes it.
            ax: Matplotlib axes to plot into.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        return cast("tuple[Figure, Axes]", self._plot(val, ax))


class CountedMetric(ConfidenceMetric):
    """Base of metrics that count how often each confidence was stated, and how often rightly.

    A subclass computes its value from the counts (:meth:`stated`). Counts are kept for each distinct confidence, and,
    for at most the last 100 batches, for each confidence that is distinct within its batch. They are float64;
    confidences are compared in the widest float type that was given.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.
    """

    n_bins = 10

    values: list[Tensor] | Tensor
    counts: list[Tensor] | Tensor
    correct: list[Tensor] | Tensor
    width: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        for name in ("values", "counts", "correct"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("width", torch.zeros((), dtype=torch.int64), dist_reduce_fx="max")

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add completions.

        Args:
            confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
            correct: Verified correctness, ``[N]`` of {0, 1}.
        """
        self._add(*check_pair(confidence, correct))

    def stated(self) -> ValueCounts:
        """Return the counts of all completions so far; within ``compute`` they are over all processes."""
        columns = (concatenated(state, self.device) for state in (self.values, self.counts, self.correct))
        values, counts, correct = merged(*columns)
        return ValueCounts(values.to(FLOAT_WIDTHS[int(self.width)]), counts, correct)

    def bins(self) -> ReliabilityBins:
        """Return the reliability bins of the completions that state a confidence, over all processes.

        Every process must call it, as it must call ``compute``: the states are gathered.
        """
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return ReliabilityBins.from_counts(self.stated(), self.n_bins)

    def _add(self, confidence: Tensor, correct: Tensor) -> None:
        batch = value_counts(confidence, correct)
        self.width = self.width.clamp(min=FLOAT_WIDTHS.index(confidence.dtype))
        self._keep([*self.values, batch.values], [*self.counts, batch.counts], [*self.correct, batch.correct])
        if len(self.values) > _BATCHES:
            table = self.stated()
            self._keep([table.values], [table.counts], [table.correct])

    def _keep(self, values: list[Tensor], counts: list[Tensor], correct: list[Tensor]) -> None:
        self.values, self.counts, self.correct = [part.to(torch.float64) for part in values], counts, correct


class CatalogueMetric(CountedMetric):
    """Base of a class for one metric of the catalogue; a subclass says which, by its attribute ``metric``.

    The metric must be one over completions that state a confidence. Which values are good, and the range, come from the
    catalogue.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Example:
        >>> class TieRate(CatalogueMetric):
        ...     metric = "tie_rate"
        >>> tie_rate = TieRate()
        >>> tie_rate.update(torch.tensor([0.5, 0.5, 1.0]), torch.tensor([1, 0, 1]))
        >>> tie_rate.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    metric: ClassVar[str]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        spec = CATALOGUE[cls.metric]
        cls.higher_is_better = {"largest": True, "smallest": False}.get(spec.best or "")
        cls.plot_lower_bound, cls.plot_upper_bound = spec.lowest, spec.highest

    def compute(self) -> Tensor:
        """Return the metric of all completions so far, over all processes."""
        return value_of(CATALOGUE[self.metric], self.stated())


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
