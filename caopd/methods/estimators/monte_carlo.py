"""The share of correct rollouts: of all in a group, or of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType

from caopd.errors import ConfigError
from caopd.methods.estimators.base import Estimator, count
from caopd.methods.estimators.stopping import jeffreys_deviation, unbiased_rates
from caopd.types import Verdict


class MonteCarlo(Estimator):
    """The share of correct rollouts (equation 5 of the paper): unbiased, variance mu (1 - mu) / G.

    Where a group stops early, the share of all its rollouts is biased; then it is what the first batch's is expected to
    be, given k of n (:func:`caopd.methods.estimators.stopping.unbiased_rates`). A group that lacks a verdict has k / n
    there too.

    Example:
        >>> from caopd.types import AnswerOutcome
        >>> right = Verdict(True, "A", AnswerOutcome.PARSED)
        >>> wrong = Verdict(False, "B", AnswerOutcome.PARSED)
        >>> MonteCarlo().estimate([right, wrong, wrong, right])
        0.5
    """

    _rates: Mapping[tuple[int, int], float] = MappingProxyType({})
    """(k, n) -> the estimate, where groups stop early."""

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float:
        """Return the mean of the verdicts, without what early stopping adds to it."""
        correct, size = count(verdicts)
        return self._rates.get((correct, size), correct / size)

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Return the estimator that undoes the bias of stopping; arguments as in the base class."""

        def is_certain(correct: int, size: int) -> bool:
            return jeffreys_deviation(correct, size) <= max_deviation

        unbiased = copy(self)
        unbiased._rates = unbiased_rates(batch, num_rollouts, is_certain)
        return unbiased


class LeaveOneOut(MonteCarlo):
    """Every rollout's estimate is the share of correct ones among the others.

    Given the prompt, a rollout's target is independent of its own verdict: unbiased, variance mu (1 - mu) / (G - 1).
    The Monte Carlo target of a correct rollout is above that of a wrong one by 1/G on average.

    Example:
        >>> from caopd.types import AnswerOutcome
        >>> right = Verdict(True, "A", AnswerOutcome.PARSED)
        >>> wrong = Verdict(False, "B", AnswerOutcome.PARSED)
        >>> LeaveOneOut().estimate_each([right, wrong, wrong, wrong, wrong])
        (0.0, 0.25, 0.25, 0.25, 0.25)
    """

    min_rollouts = 2

    def estimate_each(
        self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()
    ) -> tuple[float | None, ...]:
        """Return, for every rollout, the mean of the other verdicts; a single rollout gets its own verdict."""
        if len(verdicts) < 2:
            return super().estimate_each(verdicts, teacher_answers)
        num_correct = sum(verdict.correct for verdict in verdicts)
        return tuple((num_correct - verdict.correct) / (len(verdicts) - 1) for verdict in verdicts)

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Refuse: whether the others of a group were sampled depends on the rollout's own verdict.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "Expected groups of a fixed size with LeaveOneOut, but `data.round.adaptive` stops a group by its "
            "verdicts: which others a rollout has then depends on its own verdict, and its target must not. Set "
            "`data.estimator` to MonteCarlo (unbiased), EmpiricalBayes or Shrinkage, or `data.round.adaptive` to null."
        )
