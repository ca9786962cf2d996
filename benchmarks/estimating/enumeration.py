"""Bias, variance, calibration and cost of a policy, exact for a known distribution of success rates."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np

from caopd.methods import CaOPD
from caopd.methods.estimators import EmpiricalBayes, Estimator, LeaveOneOut, MonteCarlo, Shrinkage
from caopd.types import AnswerOutcome, Verdict

RIGHT, WRONG = Verdict(True, "A", AnswerOutcome.PARSED), Verdict(False, "B", AnswerOutcome.PARSED)
NUM_ROUNDS, NUM_PROMPTS = 100, 256
Distribution = dict[float, float]
"""Probability of every success rate."""


@dataclass(frozen=True)
class Policy:
    """An estimator under a budget, and how what it says is stated.

    Attributes:
        name: In the table.
        make: The estimator.
        num_rollouts: Largest group.
        batch: Rollouts that are sampled at once.
        max_deviation: Of the adaptive budget; None for a fixed one.
        num_levels: Of CaOPD.
    """

    name: str
    make: type[Estimator]
    num_rollouts: int
    batch: int
    max_deviation: float | None = None
    num_levels: int | None = None

    def estimator(self) -> Estimator:
        """Return the estimator for groups of this budget."""
        made = self.make()
        return made if self.max_deviation is None else made.when_stopped(*self.budget)

    @property
    def budget(self) -> tuple[int, int, float]:
        """Batch, largest group and largest deviation of the adaptive budget."""
        assert self.max_deviation is not None
        return self.batch, self.num_rollouts, self.max_deviation

    def stops(self, estimator: Estimator, size: int, correct: int) -> bool:
        """Return whether a group of this size with so many successes is complete."""
        if size >= self.num_rollouts:
            return True
        return self.max_deviation is not None and estimator.deviation(verdicts(size, correct)) <= self.max_deviation


def fixed(make: type[Estimator], size: int) -> Policy:
    """Return the policy that samples ``size`` rollouts for every prompt."""
    return Policy(f"{make.__name__}, G = {size}", make, size, size)


def adaptive(make: type[Estimator], max_deviation: float, num_levels: int | None = None) -> Policy:
    """Return the policy that samples 4 to 16 rollouts."""
    shown = f", {num_levels} levels" if num_levels else ""
    return Policy(f"{make.__name__}, 4 to 16, {max_deviation}{shown}", make, 16, 4, max_deviation, num_levels)


REFERENCE = fixed(MonteCarlo, 16)
LIMITS = (0.1, 0.12, 0.15)
POLICIES = [
    *(fixed(MonteCarlo, size) for size in (4, 8)),
    REFERENCE,
    *(fixed(make, 16) for make in (LeaveOneOut, Shrinkage)),
    *(fixed(EmpiricalBayes, size) for size in (4, 8, 12, 16)),
    *(adaptive(make, limit) for make in (MonteCarlo, Shrinkage, EmpiricalBayes) for limit in LIMITS),
    *(adaptive(EmpiricalBayes, limit, num_levels=9) for limit in (0.12, 0.15)),
]
SYNTHETIC: dict[str, Distribution] = {
    "draw task, optimum": {1.0: 0.4, 0.5: 0.3, 1 / 3: 0.2, 0.25: 0.1},
    "uniform on 19 rates": {index / 20: 1 / 19 for index in range(1, 20)},
}


def verdicts(size: int, correct: int) -> list[Verdict]:
    """Return the verdicts of a group."""
    return [RIGHT] * correct + [WRONG] * (size - correct)


def learn(policy: Policy, rates: Distribution, seed: int = 0) -> Estimator:
    """Return the estimator after simulated rounds under its own budget."""
    rng, estimator = np.random.default_rng(seed), policy.estimator()
    values, weights = np.array(list(rates)), np.array(list(rates.values()))
    for _ in range(NUM_ROUNDS):
        groups = []
        for rate in rng.choice(values, NUM_PROMPTS, p=weights / weights.sum()):
            first = correct = int(rng.binomial(policy.batch, rate))
            size = policy.batch
            while not policy.stops(estimator, size, correct):
                size, correct = size + policy.batch, correct + int(rng.binomial(policy.batch, rate))
            whole = estimator.learns_from_stopped
            groups.append(verdicts(size, correct) if whole else verdicts(policy.batch, first))
        estimator.end_round(groups)
    return estimator


def endings(policy: Policy, estimator: Estimator, rate: float) -> dict[tuple[int, int], float]:
    """Return the probability of every (rollouts, successes) at which sampling stops."""
    running, stopped = {(0, 0): 1.0}, defaultdict(float)
    while running:
        grown: dict[tuple[int, int], float] = defaultdict(float)
        for (size, correct), probability in running.items():
            for more in range(policy.batch + 1):
                chance = comb(policy.batch, more) * rate**more * (1 - rate) ** (policy.batch - more)
                grown[size + policy.batch, correct + more] += probability * chance
        running = {}
        for state, probability in grown.items():
            if policy.stops(estimator, *state):
                stopped[state] += probability
            else:
                running[state] = probability
    return stopped


def share_of_whole_groups(max_deviation: float, rate: float) -> float:
    """Return the mean of k / n over groups that stopped: what it is biased by is this, less the rate."""
    policy = adaptive(MonteCarlo, max_deviation)
    return sum(p * correct / size for (size, correct), p in endings(policy, MonteCarlo(), rate).items())


def stopping_bias(max_deviation: float, distributions: dict[str, Distribution]) -> dict:
    """Return how far the share k / n of whole groups, and its mean over prompts, are from the truth."""
    bias = {rate: share_of_whole_groups(max_deviation, rate) - rate for rate in (i / 100 for i in range(101))}
    worst = max(bias, key=lambda rate: round(abs(bias[rate]), 12))
    means = {}
    for name, rates in distributions.items():
        mean = sum(weight * share_of_whole_groups(max_deviation, rate) for rate, weight in rates.items())
        means[name] = {"truth": sum(weight * rate for rate, weight in rates.items()), "whole_groups": mean}
    return {"worst_rate": worst, "worst_bias": bias[worst], "mean_at_0.2": 0.2 + bias[0.2], "means": means}


def judge(policy: Policy, rates: Distribution) -> dict[str, float]:
    """Return cost, bias, variance, excess Brier score and calibration error of what is stated."""
    estimator, method = learn(policy, rates), CaOPD(num_levels=policy.num_levels)
    totals, stated = Counter(), defaultdict(float)
    for rate, weight in rates.items():
        outcomes = [
            (n, method.stated_confidence(target), p)
            for state, p in endings(policy, estimator, rate).items()
            for n, target, p in _targets(estimator, *state, p)
        ]
        mean = sum(target * p for _, target, p in outcomes)
        totals["rollouts"] += weight * sum(n * p for n, _, p in outcomes)
        totals["bias"] += weight * abs(mean - rate)
        totals["variance"] += weight * sum((target - mean) ** 2 * p for _, target, p in outcomes)
        totals["excess_brier"] += weight * sum((target - rate) ** 2 * p for _, target, p in outcomes)
        totals["theory"] += weight * rate * (1 - rate) / policy.num_rollouts
        for _, target, p in outcomes:
            stated[round(target, 2)] += weight * p * (rate - target)
    totals["ece"] = float(sum(map(abs, stated.values())))
    return {name: float(value) for name, value in totals.items()}


def _targets(estimator: Estimator, size: int, correct: int, probability: float) -> list[tuple[int, float, float]]:
    """Return what the rollouts of a group are to state: every value with its share of the group's probability."""
    values = Counter(estimator.estimate_each(verdicts(size, correct)))
    return [(size, float(value), probability * (number / size)) for value, number in values.items()]


def oracle_share(rates: Distribution) -> float:
    """Return which share of a fixed budget's rollouts gives k / n the same excess Brier score, if divided best.

    With n_i rollouts for a prompt of rate p_i, the score is the mean of p_i (1 - p_i) / n_i; for a given sum of n_i it
    is least where n_i is proportional to sqrt(p_i (1 - p_i)) (Neyman 1934). Who does that must know every rate.
    """
    deviation = sum(weight * sqrt(rate * (1 - rate)) for rate, weight in rates.items())
    return deviation**2 / sum(rate * (1 - rate) * weight for rate, weight in rates.items())
