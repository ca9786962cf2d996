"""pass@k over all prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caopd.metrics.base import ConfidenceMetric
from caopd.metrics.functional.pass_at_k import check_k, check_num_correct, mean_pass_at_k


class PassAtK(ConfidenceMetric):
    r"""pass@k: how likely at least one of k completions of a prompt is correct.

    .. math::
        \text{pass@}k = \frac{1}{P} \sum_p 1 - \binom{n - c_p}{k} \Big/ \binom{n}{k}

    with :math:`n` completions of each of :math:`P` prompts and :math:`c_p` the correct ones. Unbiased, whatever n. Kept
    is how many prompts have how many correct completions: n + 1 integers.

    As input to ``forward`` and ``update`` the metric accepts ``num_correct``, an integer tensor ``[P]`` with values
    from 0 to n. As output of ``forward`` and ``compute``: a dict of float64 scalars, ``pass_at_1`` (the mean accuracy),
    ``pass_at_2`` and so on; NaN without prompts.

    Args:
        num_samples: n, the number of completions of each prompt.
        ks: The values of k, each from 1 to n; None is the powers of two up to n.
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        ConfigError: A k below 1 or above n.
        DataError: from ``update``, for anything but integers from 0 to n.

    Source:
        Chen et al. 2021 (arXiv 2107.03374), equation 1.

    Example:
        >>> metric = PassAtK(num_samples=4)
        >>> metric.update(torch.tensor([0, 1]))
        >>> metric.update(torch.tensor([4, 4]))
        >>> {name: float(value) for name, value in metric.compute().items()}
        {'pass_at_1': 0.5625, 'pass_at_2': 0.625, 'pass_at_4': 0.75}
    """

    higher_is_better = True

    prompts: Tensor

    def __init__(self, num_samples: int, ks: Sequence[int] | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.num_samples = num_samples
        self.ks = powers_of_two(num_samples) if ks is None else list(ks)
        for k in self.ks:
            check_k(k, num_samples)
        self.add_count("prompts", num_samples + 1)

    def update(self, num_correct: Tensor) -> None:
        """Add prompts.

        Args:
            num_correct: Number of correct completions of each prompt, integer tensor ``[P]``.
        """
        check_num_correct(num_correct, self.num_samples)
        self.prompts = self.prompts + torch.bincount(num_correct, minlength=self.num_samples + 1)

    def compute(self) -> dict[str, Tensor]:
        """Return the pass@k of all prompts so far, over all processes."""
        return {f"pass_at_{k}": mean_pass_at_k(self.prompts, k) for k in self.ks}


def powers_of_two(largest: int) -> list[int]:
    """Return 1, 2, 4, ... up to ``largest``.

    Example:
        >>> powers_of_two(10)
        [1, 2, 4, 8]
    """
    return [2**exponent for exponent in range(largest.bit_length())]
