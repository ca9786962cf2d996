"""Estimators of the empirical confidence mu_hat from the rollouts of one group. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean
from types import MappingProxyType
from typing import ClassVar

from caopd.errors import ConfigError
from caopd.methods.stopping import jeffreys_deviation, unbiased_rates
from caopd.types import Verdict, VerifiedGroup


class Estimator(ABC):
    """Estimates the student's success rate on one prompt.

    Attributes:
        num_teacher_rollouts: How many completions of each prompt the teacher must sample with its context.
        min_rollouts: Smallest G that the estimator can work with.
        learns_from_stopped: Whether what :meth:`end_round` learns stays right where a group's verdicts decided how many
            it has. Where not, it is given the first batch of each group alone, whose size is fixed.
    """

    num_teacher_rollouts: int = 0
    min_rollouts: int = 1
    learns_from_stopped: ClassVar[bool] = False

    @abstractmethod
    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float | None:
        """Return the group's mu_hat in [0, 1]; None where nothing can be said, which gives the group no weight.

        Args:
            verdicts: The verdicts of the rollouts of one prompt, G but for those that have none, and at least
                ``min_rollouts``.
            teacher_answers: Parsed answers of the teacher's completions, when the estimator asks for them.
        """

    def estimate_each(
        self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()
    ) -> tuple[float | None, ...]:
        """Return mu_hat for every rollout; by default all of them have that of the group.

        Args:
            verdicts: The verdicts, as in :meth:`estimate`; a rollout without one has no mu_hat.
            teacher_answers: Parsed answers of the teacher's completions, as in :meth:`estimate`.
        """
        return (self.estimate(verdicts, teacher_answers),) * len(verdicts)

    def estimate_group(
        self, group: VerifiedGroup, teacher_answers: Sequence[str | None] = ()
    ) -> tuple[float | None, ...]:
        """Return mu_hat for every verdict of a group, for estimators that read more of a rollout than its verdict.

        Args:
            group: The group, whose ``mu_hats`` are not known yet.
            teacher_answers: Parsed answers of the teacher's completions, as in :meth:`estimate`.
        """
        return self.estimate_each(group.verdicts, teacher_answers)

    def deviation(self, verdicts: Sequence[Verdict]) -> float:
        """Return how uncertain the success rate is: the standard deviation of its posterior.

        By default the posterior is Beta(k + 1/2, n - k + 1/2), with k of n rollouts correct. It comes from Jeffreys'
        prior, under which no number of equal verdicts gives certainty.

        Args:
            verdicts: The verdicts of the rollouts that are sampled so far.

        Example:
            >>> from caopd.types import AnswerOutcome
            >>> round(MonteCarlo().deviation([Verdict(True, "A", AnswerOutcome.PARSED)] * 4), 4)
            0.1225
        """
        return jeffreys_deviation(*_counts(verdicts))

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Return the estimator for groups that are sampled until they are certain enough; by default itself.

        Args:
            batch: How many rollouts of a group are sampled at once.
            num_rollouts: G, the size of the largest group.
            max_deviation: The :meth:`deviation` at which a group stops.

        Raises:
            ConfigError: Its estimates cannot be right for such groups.
        """
        return self

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Learn from a finished round; the groups are the same in every process.

        Args:
            groups: The verdicts of all groups of the round that have any; see ``learns_from_stopped``.
        """
        return

    def learn_from(self, groups: Sequence[VerifiedGroup]) -> None:
        """Learn from the groups of a finished round; by default from their verdicts, with :meth:`end_round`.

        Args:
            groups: All groups of the round that have a verdict, the same in every process; see ``learns_from_stopped``.
        """
        self.end_round([group.verdicts for group in groups])

    def state_dict(self) -> dict[str, float]:
        """Return the state that a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the state that ``state_dict`` returned."""
        return


class MonteCarlo(Estimator):
    """The share of correct rollouts (equation 5 of the paper): unbiased, variance mu (1 - mu) / G.

    Where a group stops early, the share of all its rollouts is biased; then it is what the first batch's is expected to
    be, given k of n (:func:`caopd.methods.stopping.unbiased_rates`). A group that lacks a verdict has k / n there too.

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
        correct, size = _counts(verdicts)
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


@dataclass
class Shrinkage(Estimator):
    """Posterior mean under a Beta(s m, s (1 - m)) prior: (sum R + s m) / (G + s), m the running mean accuracy.

    Under an adaptive budget m is learned from the first batch of every group: stopping biases the mean of whole ones.

    Args:
        strength: s, the weight of the prior as a number of rollouts; 0 gives the Monte Carlo estimate, also under an
            adaptive budget.
        momentum: Share of the running mean that each round replaces; the first round sets it.
    """

    strength: float = 2.0
    momentum: float = 0.1
    _mean: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.strength < 0:
            raise ConfigError(f"Expected `strength` of {name} to be 0 or larger, but got {self.strength}.")
        if not 0 < self.momentum <= 1:
            raise ConfigError(f"Expected `momentum` of {name} to be in (0, 1], but got {self.momentum}.")

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Return itself, whose posterior stopping does not change; without a prior, Monte Carlo."""
        return self if self.strength else MonteCarlo().when_stopped(batch, num_rollouts, max_deviation)

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float:
        """Return the posterior mean; before the first finished round the prior's mean is 1/2."""
        prior_mean = 0.5 if self._mean is None else self._mean
        num_correct = sum(verdict.correct for verdict in verdicts)
        return (num_correct + self.strength * prior_mean) / (len(verdicts) + self.strength)

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Move the running mean accuracy towards the round's, in which every prompt counts alike."""
        accuracy = fmean(fmean(verdict.correct for verdict in group) for group in groups)
        self._mean = accuracy if self._mean is None else self._mean + self.momentum * (accuracy - self._mean)

    def state_dict(self) -> dict[str, float]:
        """Return the running mean."""
        return {} if self._mean is None else {"mean": self._mean}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the running mean."""
        self._mean = state.get("mean")


NUM_EM_STEPS = 50
"""Steps of expectation-maximisation that fit the prior of :class:`EmpiricalBayes`."""


@dataclass
class EmpiricalBayes(Estimator):
    """Posterior mean under a prior over success rates that is learned from past rounds.

    The prior is a histogram w over the rates p_j = j / (size - 1), flat before the first round. After every round it is
    fitted to all past groups (k of n correct), which fade by 1 - momentum a round, from the flat one in
    ``NUM_EM_STEPS`` steps of expectation-maximisation:

        w_j <- mean over groups of P(p_j | k, n),   P(p_j | k, n) proportional to w_j p_j^k (1 - p_j)^(n - k).

    Neither posterior nor prior depends on why sampling stopped: the likelihood of k of n is p^k (1 - p)^(n - k) times a
    factor without p. So both stay right under an adaptive budget, and whole groups are learned from. Empirical Bayes is
    by Robbins (1956); the fit is Laird's (1978) on a grid, stopped early.

    Args:
        size: Number of rates p_j.
        momentum: Share of the past that each round replaces; the first round sets it.
        floor: Share of the flat prior that is mixed in, so that no rate becomes impossible.
    """

    learns_from_stopped = True
    size: int = 21
    momentum: float = 0.1
    floor: float = 0.01
    _groups: dict[tuple[int, int], float] = field(default_factory=dict, init=False)
    """(k, n) -> weight of the past groups with k of n rollouts correct."""
    _prior: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.size < 3:
            raise ConfigError(f"Expected `size` of EmpiricalBayes to be at least 3, but got {self.size}.")
        for name, share in (("momentum", self.momentum), ("floor", self.floor)):
            if not 0 < share <= 1:
                raise ConfigError(f"Expected `{name}` of EmpiricalBayes to be in (0, 1], but got {share}.")
        self._fit()

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float:
        """Return the posterior mean."""
        return self._expectation(self._posterior(self._prior, *_counts(verdicts)))

    def deviation(self, verdicts: Sequence[Verdict]) -> float:
        """Return the posterior's standard deviation."""
        posterior = self._posterior(self._prior, *_counts(verdicts))
        mean = self._expectation(posterior)
        return sqrt(sum(weight * (rate - mean) ** 2 for weight, rate in zip(posterior, self._rates, strict=True)))

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Let past groups fade, add the round's, and fit the prior."""
        self._groups = {key: weight * (1 - self.momentum) for key, weight in self._groups.items()}
        for key, number in Counter(map(_counts, groups)).items():
            self._groups[key] = self._groups.get(key, 0.0) + self.momentum * number / len(groups)
        self._fit()

    def state_dict(self) -> dict[str, float]:
        """Return the weights of past groups."""
        return {f"{correct}/{size}": weight for (correct, size), weight in self._groups.items()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the past groups and the prior.

        Raises:
            ConfigError: If the state is that of another estimator.
        """
        try:
            self._groups = {(int(key.split("/")[0]), int(key.split("/")[1])): state[key] for key in state}
        except (ValueError, IndexError) as error:
            raise ConfigError(
                f"Expected the checkpoint's estimator to be EmpiricalBayes, but got a state of {sorted(state)}: resume "
                "with the `data.estimator` of the run that wrote it."
            ) from error
        self._fit()

    def _fit(self) -> None:
        prior = [1 / self.size] * self.size
        total = sum(self._groups.values())
        for _ in range(NUM_EM_STEPS if self._groups else 0):
            fitted = [0.0] * self.size
            for key, weight in self._groups.items():
                for index, share in enumerate(self._posterior(prior, *key)):
                    fitted[index] += weight / total * share
            prior = fitted
        self._prior = [(1 - self.floor) * weight + self.floor / self.size for weight in prior]

    @property
    def _rates(self) -> list[float]:
        return [index / (self.size - 1) for index in range(self.size)]

    def _posterior(self, prior: Sequence[float], correct: int, size: int) -> list[float]:
        joint = [w * p**correct * (1 - p) ** (size - correct) for w, p in zip(prior, self._rates, strict=True)]
        total = sum(joint)
        return [weight / total for weight in joint]

    def _expectation(self, posterior: Sequence[float]) -> float:
        return sum(weight * rate for weight, rate in zip(posterior, self._rates, strict=True))


def _counts(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """Return how many verdicts are correct, and how many there are."""
    return sum(verdict.correct for verdict in verdicts), len(verdicts)


@dataclass
class SelfConsistency(Estimator):
    """The share of rollouts whose answer is the one that the teacher, with its context, gives most often.

    For tasks without a verifier. The paper names this "Teacher-Anchored Self-Consistency" without a definition
    (appendix B.6); this reading is ours. Of equally frequent answers the first given counts. If the teacher gives no
    answer at all, mu_hat is unknown and the group has no weight.

    Args:
        num_teacher_rollouts: Number of the teacher's completions of each prompt.
    """

    num_teacher_rollouts: int = 4

    def __post_init__(self) -> None:
        if self.num_teacher_rollouts < 1:
            raise ConfigError(
                "Expected `num_teacher_rollouts` of SelfConsistency to be at least 1, but got "
                f"{self.num_teacher_rollouts}."
            )

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Refuse: when a group stops is decided before the teacher has answered.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "Expected an estimator that judges by verdicts with `data.round.adaptive`, but got SelfConsistency, which "
            "knows nothing before the teacher has answered."
        )

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float | None:
        """Return the share of the rollouts' answers that equal the teacher's majority answer, None if it gave none."""
        anchor = majority_answer(teacher_answers)
        if anchor is None:
            return None
        return sum(verdict.answer == anchor for verdict in verdicts) / len(verdicts)


def majority_answer(answers: Sequence[str | None]) -> str | None:
    """Return the most frequent answer, the first given of equally frequent ones; None where there is none.

    Args:
        answers: Canonical answers; None for a completion without a readable one, which has no vote.

    Example:
        >>> majority_answer(["B", None, "A", None, "A", "B", None])
        'B'
    """
    given = Counter(answer for answer in answers if answer is not None)
    return given.most_common(1)[0][0] if given else None
