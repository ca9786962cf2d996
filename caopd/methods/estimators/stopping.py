"""What early stopping makes of the share of correct rollouts, and the share that it leaves unbiased. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import comb, sqrt


def jeffreys_deviation(correct: int, size: int) -> float:
    """Return the standard deviation of Beta(k + 1/2, n - k + 1/2), the posterior under Jeffreys' prior.

    Args:
        correct: k, how many rollouts are correct.
        size: n, how many there are.

    Example:
        >>> round(jeffreys_deviation(4, 4), 4)
        0.1225
    """
    mean = (correct + 0.5) / (size + 1)
    return sqrt(mean * (1 - mean) / (size + 2))


def unbiased_rates(
    batch: int, num_rollouts: int, is_certain: Callable[[int, int], bool]
) -> dict[tuple[int, int], float]:
    """Return, for every (k, n) at which sampling can stop, the one estimate of the success rate without bias.

    It is the expected share of correct rollouts in the first batch, given k of n: the first batch has a fixed size, so
    its share is unbiased, and so is this expectation, with less variance (Rao-Blackwell). Given k of n every way to get
    there is equally likely, whatever the success rate, so ways are counted (Girshick, Mosteller and Savage 1946). With
    a single batch it is k / n.

    Args:
        batch: b, how many rollouts are sampled at once.
        num_rollouts: G, the largest n; a multiple of b.
        is_certain: Whether sampling stops at k of n.

    Example:
        One rollout at a time, and the first success ends it: what follows a failure must make up for that.

        >>> unbiased_rates(1, 3, lambda correct, size: correct > 0)
        {(1, 1): 1.0, (1, 2): 0.0, (0, 3): 0.0, (1, 3): 0.0}
    """
    rates: dict[tuple[int, int], float] = {}
    running = {(0, 0): (1, 0.0)}
    """(k, n) -> the number of ways to get there, and the sum, over these, of the first batch's share."""
    for size in range(batch, num_rollouts + 1, batch):
        grown: dict[tuple[int, int], tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        for (correct, _), (ways, total) in running.items():
            for more in range(batch + 1):
                reached, each = grown[correct + more, size], comb(batch, more)
                share = more / batch if size == batch else total
                grown[correct + more, size] = (reached[0] + ways * each, reached[1] + share * each)
        running = {state: each for state, each in grown.items() if size < num_rollouts and not is_certain(*state)}
        rates |= {state: total / ways for state, (ways, total) in grown.items() if state not in running}
    return rates
