import collections
import functools
import itertools
from fractions import Fraction

import pytest

from caopd.errors import ConfigError
from caopd.methods.estimators import EmpiricalBayes, LeaveOneOut, MonteCarlo, SelfConsistency, Shrinkage
from caopd.types import AnswerOutcome, Verdict


def verdicts(pattern):
    return [Verdict(c == "1", "A" if c == "1" else "B", AnswerOutcome.PARSED) for c in pattern]


def answered(*answers):
    return [Verdict(False, a, AnswerOutcome.PARSED if a else AnswerOutcome.MISSING) for a in answers]


@pytest.mark.parametrize("num_rollouts", [1, 3, 8])
def test_monte_carlo_is_the_share_of_correct_rollouts(num_rollouts):
    for pattern in itertools.product("01", repeat=num_rollouts):
        share = Fraction(pattern.count("1"), num_rollouts)
        assert MonteCarlo().estimate(verdicts(pattern)) == pytest.approx(float(share), abs=1e-15)


def test_monte_carlo_is_unbiased_with_the_binomial_variance():
    rate, num_rollouts = 0.3, 5
    outcomes = [
        (MonteCarlo().estimate(verdicts(p)), rate ** p.count("1") * (1 - rate) ** p.count("0"))
        for p in itertools.product("01", repeat=num_rollouts)
    ]
    mean = sum(estimate * probability for estimate, probability in outcomes)
    variance = sum((estimate - mean) ** 2 * probability for estimate, probability in outcomes)
    assert mean == pytest.approx(rate)
    assert variance == pytest.approx(rate * (1 - rate) / num_rollouts)


def test_shrinkage_is_the_posterior_mean_of_a_beta_prior():
    """Against the integral of p * p^k (1-p)^(G-k) * Beta(p; s m, s (1-m)) over p."""
    from scipy.integrate import quad
    from scipy.stats import beta

    estimator = Shrinkage(strength=4.0)
    estimator.load_state_dict({"mean": 0.7})
    prior = beta(4.0 * 0.7, 4.0 * 0.3)
    for pattern in ("000", "010", "110", "111"):
        correct = pattern.count("1")

        def likelihood(p, correct=correct):
            return p**correct * (1 - p) ** (3 - correct) * prior.pdf(p)

        expected = quad(lambda p: p * likelihood(p), 0, 1)[0] / quad(likelihood, 0, 1)[0]
        assert estimator.estimate(verdicts(pattern)) == pytest.approx(expected, abs=1e-6)


def test_shrinkage_begins_at_one_half_and_the_first_round_sets_its_mean():
    estimator = Shrinkage(strength=2.0, momentum=0.25)
    assert estimator.estimate(verdicts("11")) == pytest.approx((2 + 2 * 0.5) / 4)
    estimator.end_round([verdicts("1110"), verdicts("1111")])
    assert estimator.estimate(verdicts("11")) == pytest.approx((2 + 2 * 7 / 8) / 4)
    estimator.end_round([verdicts("0000")])
    assert estimator.estimate(verdicts("11")) == pytest.approx((2 + 2 * (0.75 * 7 / 8)) / 4)


def test_shrinkage_does_not_learn_before_the_round_ends():
    estimator = Shrinkage()
    first = estimator.estimate(verdicts("0000"))
    estimator.estimate(verdicts("1111"))
    assert estimator.estimate(verdicts("0000")) == first


def test_shrinkage_without_strength_is_monte_carlo():
    estimator = Shrinkage(strength=0.0)
    estimator.end_round([verdicts("1110")])
    for pattern in itertools.product("01", repeat=4):
        assert estimator.estimate(verdicts(pattern)) == MonteCarlo().estimate(verdicts(pattern))


@pytest.mark.parametrize("num_rounds", [0, 1, 3])
def test_shrinkage_goes_on_from_its_state(num_rounds):
    estimator, restored = Shrinkage(), Shrinkage()
    for number in range(num_rounds):
        estimator.end_round([verdicts("1" * number + "0")])
    restored.load_state_dict(estimator.state_dict())
    for each in (estimator, restored):
        each.end_round([verdicts("110")])
    assert restored.estimate(verdicts("10")) == estimator.estimate(verdicts("10"))


def test_loading_a_fresh_state_forgets_the_mean():
    estimator = Shrinkage()
    fresh = estimator.state_dict()
    before = estimator.estimate(verdicts("10"))
    estimator.end_round([verdicts("1111")])
    estimator.load_state_dict(fresh)
    assert estimator.estimate(verdicts("10")) == before


def test_self_consistency_is_the_share_that_gives_the_teachers_answer():
    group = answered("A", "B", "A", None)
    assert SelfConsistency().estimate(group, ["A", "A", "B"]) == 0.5
    assert SelfConsistency().estimate(group, ["B", None, "B", "A"]) == 0.25
    assert SelfConsistency().estimate(group, ["C"]) == 0.0


def test_self_consistency_takes_the_first_of_equally_frequent_answers():
    group = answered("A", "A", "B", "C")
    assert SelfConsistency().estimate(group, ["B", "A", "A", "B"]) == 0.25
    assert SelfConsistency().estimate(group, ["A", "B", "B", "A"]) == 0.5


@pytest.mark.parametrize("teacher_answers", [[], [None], [None, None]])
def test_self_consistency_says_nothing_without_an_answer_of_the_teacher(teacher_answers):
    assert SelfConsistency().estimate(answered("A", None), teacher_answers) is None


def test_self_consistency_needs_no_verdicts():
    right, wrong = Verdict(True, "A", AnswerOutcome.PARSED), Verdict(False, "A", AnswerOutcome.PARSED)
    assert SelfConsistency().estimate([right], ["A"]) == SelfConsistency().estimate([wrong], ["A"]) == 1.0


@pytest.mark.parametrize("num_rollouts", [2, 3, 5])
def test_leave_one_out_targets_are_the_means_of_the_others(num_rollouts):
    for pattern in itertools.product("01", repeat=num_rollouts):
        for index, target in enumerate(LeaveOneOut().estimate_each(verdicts(pattern))):
            others = pattern[:index] + pattern[index + 1 :]
            assert target == pytest.approx(others.count("1") / len(others))


def test_leave_one_out_is_unbiased_given_the_rollouts_own_verdict_and_monte_carlo_is_not():
    """By enumeration; theory: variance mu (1 - mu) / (G - 1), and Monte Carlo is apart by 1/G."""
    rate, size = 0.3, 5
    weights = {p: rate ** p.count("1") * (1 - rate) ** p.count("0") for p in itertools.product("01", repeat=size)}

    def mean_given(own, value):
        chosen = {p: w for p, w in weights.items() if p[0] == own}
        return sum(w * value(verdicts(p)) for p, w in chosen.items()) / sum(chosen.values())

    def loo(group):
        return LeaveOneOut().estimate_each(group)[0]

    assert mean_given("1", loo) == pytest.approx(rate)
    assert mean_given("0", loo) == pytest.approx(rate)
    variance = sum(w * (loo(verdicts(p)) - rate) ** 2 for p, w in weights.items())
    assert variance == pytest.approx(rate * (1 - rate) / (size - 1))
    mc = MonteCarlo().estimate
    assert mean_given("1", mc) - mean_given("0", mc) == pytest.approx(1 / size)


def test_the_deviation_is_that_of_jeffreys_posterior():
    from scipy.stats import beta

    for size in (1, 4, 7):
        for correct in range(size + 1):
            expected = beta(correct + 0.5, size - correct + 0.5).std()
            assert MonteCarlo().deviation(verdicts("1" * correct + "0" * (size - correct))) == pytest.approx(expected)


def test_empirical_bayes_begins_with_the_flat_prior_of_a_grid():
    """A fine grid's posterior is that of the uniform prior, Beta(k + 1, n - k + 1)."""
    from scipy.stats import beta

    estimator = EmpiricalBayes(size=2001)
    for pattern in ("", "0", "110", "1111"):
        posterior = beta(pattern.count("1") + 1, pattern.count("0") + 1)
        assert estimator.estimate(verdicts(pattern)) == pytest.approx(posterior.mean(), abs=1e-3)
        assert estimator.deviation(verdicts(pattern)) == pytest.approx(posterior.std(), abs=1e-3)


def test_the_prior_is_nearly_the_most_likely_one():
    """Against scipy's maximum of the likelihood over all histograms on five rates."""
    import numpy as np
    from scipy.optimize import minimize

    groups = ["1111", "1110", "1010", "0000", "1111", "0100", "1111", "0001"]
    estimator = EmpiricalBayes(size=5, floor=1e-9)
    estimator.end_round([verdicts(pattern) for pattern in groups])
    rates = np.linspace(0, 1, 5)
    likelihood = np.array([rates ** p.count("1") * (1 - rates) ** p.count("0") for p in groups])

    def loss(logits):
        weights = np.exp(logits - logits.max())
        return -np.log(likelihood @ (weights / weights.sum())).mean()

    best = minimize(loss, np.zeros(5)).x
    weights = np.exp(best) / np.exp(best).sum()
    for pattern in ("", "1", "0", "01", "1111"):
        posterior = weights * rates ** pattern.count("1") * (1 - rates) ** pattern.count("0")
        expected = (posterior @ rates) / posterior.sum()
        assert estimator.estimate(verdicts(pattern)) == pytest.approx(expected, abs=0.02)


def test_past_groups_fade_and_the_rounds_count_alike():
    estimator = EmpiricalBayes(momentum=0.25)
    estimator.end_round([verdicts("1"), verdicts("01")])
    estimator.end_round([verdicts("1")])
    first, second = Fraction(3, 4) * Fraction(1, 4), Fraction(1, 4)
    expected = {"1/1": float(first / 2 + second), "1/2": float(first / 2)}
    assert estimator.state_dict() == pytest.approx(expected)


def test_empirical_bayes_learns_where_success_rates_are():
    """Prompts of rate 0 or 1 only: after a round one rollout says which, and it is nearly certain."""
    estimator = EmpiricalBayes()
    estimator.end_round([verdicts("1111"), verdicts("0000")])
    assert estimator.estimate(verdicts("1")) > 0.97
    assert estimator.estimate(verdicts("0")) < 0.03
    assert estimator.deviation(verdicts("1")) < 0.1 < EmpiricalBayes().deviation(verdicts("1"))


def test_shrinkage_counts_every_prompt_alike():
    estimator = Shrinkage()
    estimator.end_round([verdicts("11111111"), verdicts("00")])
    assert estimator.state_dict() == {"mean": 0.5}


def test_a_state_of_another_estimator_is_refused():
    with pytest.raises(ConfigError, match=r"EmpiricalBayes.*\['mean'\]"):
        EmpiricalBayes().load_state_dict({"mean": 0.5})


def stopped_sequences(rate, batch, num_rollouts, is_certain):
    """Every sequence of verdicts with its probability, cut where sampling stops: by definition, not recursion."""
    found = {}
    for pattern in map("".join, itertools.product("01", repeat=num_rollouts)):
        sizes = range(batch, num_rollouts + 1, batch)
        end = next((size for size in sizes if is_certain(pattern[:size])), num_rollouts)
        probability = rate ** pattern.count("1") * (1 - rate) ** pattern.count("0")
        found[pattern[:end]] = found.get(pattern[:end], 0.0) + probability
    return found


def is_narrow(limit):
    from scipy.stats import beta

    @functools.cache
    def narrow(correct, size):
        return beta(correct + 0.5, size - correct + 0.5).std() <= limit

    return lambda pattern: narrow(pattern.count("1"), len(pattern))


BUDGETS = [(2, 8, 0.15), (4, 12, 0.15), (1, 6, 0.25), (4, 4, 0.1)]


@pytest.mark.parametrize(("batch", "num_rollouts", "limit"), BUDGETS)
def test_monte_carlo_stays_unbiased_where_groups_stop_early(batch, num_rollouts, limit):
    estimator, sizes, worst = MonteCarlo().when_stopped(batch, num_rollouts, limit), set(), 0.0
    for rate in (0.05, 0.2, 0.5, 0.77, 1.0):
        sequences = stopped_sequences(rate, batch, num_rollouts, is_narrow(limit))
        estimates = {pattern: estimator.estimate(verdicts(pattern)) for pattern in sequences}
        assert all(0 <= estimate <= 1 for estimate in estimates.values())
        assert sum(p * estimates[pattern] for pattern, p in sequences.items()) == pytest.approx(rate, abs=1e-12)
        share = sum(p * pattern.count("1") / len(pattern) for pattern, p in sequences.items())
        worst = max(worst, abs(share - rate))
        sizes |= {len(pattern) for pattern in sequences}
        first = sum(p * (pattern[:batch].count("1") / batch - rate) ** 2 for pattern, p in sequences.items())
        own = sum(p * (estimates[pattern] - rate) ** 2 for pattern, p in sequences.items())
        assert own <= first + 1e-12, "whole groups say more than their first batches"
    assert (worst > 0.01) == (len(sizes) > 1), "the share of all rollouts is biased where groups stop"


def test_the_sizes_of_the_bias_are_those_of_the_docs():
    """The worst success rate of 101, and the mean at .2, of k/n with batches of 4 and at most 16 rollouts."""
    for limit, mean, bias in ((0.1, 0.179, 0.024), (0.12, 0.172, 0.031), (0.15, 0.146, 0.056)):
        sequences = stopped_sequences(0.2, 4, 16, is_narrow(limit))
        states = collections.Counter()
        for pattern in sequences:  # every way to get to k of n is equally likely
            states[pattern.count("1"), len(pattern)] += 1
        biases = []
        for rate in (index / 100 for index in range(101)):
            each = ((k / n, ways * rate**k * (1 - rate) ** (n - k)) for (k, n), ways in states.items())
            biases.append(sum(share * p for share, p in each) - rate)
        assert 0.2 + biases[20] == pytest.approx(mean, abs=5e-4)
        assert max(map(abs, biases)) == pytest.approx(bias, abs=5e-4)


def test_a_group_that_lacks_a_verdict_has_the_share_of_the_others():
    estimator = MonteCarlo().when_stopped(4, 16, 0.15)
    assert estimator.estimate(verdicts("0110001")) == 3 / 7


def test_what_empirical_bayes_learns_of_stopped_groups_is_the_prior_that_they_come_from():
    """The mean posterior over all groups, stopped by its own rule, is the prior: the fit stays where it is right."""
    estimator = EmpiricalBayes(size=5, floor=1e-9)
    estimator.end_round([verdicts(pattern) for pattern in ("1111", "1110", "0001", "0000", "0100")])
    rates, prior = [index / 4 for index in range(5)], estimator._prior
    groups, sizes = {}, set()
    for rate, weight in zip(rates, prior, strict=True):
        for pattern, p in stopped_sequences(
            rate, 2, 8, lambda pattern: estimator.deviation(verdicts(pattern)) <= 0.15
        ).items():
            groups[pattern] = groups.get(pattern, 0.0) + weight * p
            sizes.add(len(pattern))
    assert len(sizes) > 2
    joint = {
        pattern: [
            w * r ** pattern.count("1") * (1 - r) ** pattern.count("0") for w, r in zip(prior, rates, strict=True)
        ]
        for pattern in groups
    }
    for index, weight in enumerate(prior):
        mean = sum(p * joint[pattern][index] / sum(joint[pattern]) for pattern, p in groups.items())
        assert mean == pytest.approx(weight, abs=1e-12)
    mean = sum(p * estimator.estimate(verdicts(pattern)) for pattern, p in groups.items())
    assert mean == pytest.approx(sum(w * r for w, r in zip(prior, rates, strict=True)), abs=1e-12)
    share = sum(p * pattern.count("1") / len(pattern) for pattern, p in groups.items())
    assert abs(share - mean) > 5e-3, "the mean of the shares, which Shrinkage learned from, is not the prior's"


def test_estimators_that_stopping_would_make_wrong_are_refused():
    with pytest.raises(ConfigError, match=r"LeaveOneOut.*its own verdict.*MonteCarlo.*`data\.round\.adaptive` to null"):
        LeaveOneOut().when_stopped(4, 16, 0.1)
    with pytest.raises(ConfigError, match=r"data\.round\.adaptive.*SelfConsistency.*teacher has answered"):
        SelfConsistency().when_stopped(4, 16, 0.1)
    for estimator in (Shrinkage(), EmpiricalBayes()):
        assert estimator.when_stopped(4, 16, 0.1) is estimator
    unbiased, bare = (each.when_stopped(4, 16, 0.15) for each in (MonteCarlo(), Shrinkage(strength=0.0)))
    assert bare.estimate(verdicts("00010000")) == unbiased.estimate(verdicts("00010000")) == 0.25
    assert MonteCarlo().estimate(verdicts("00010000")) == 0.125, "of a fixed size as ever"
    assert [each.learns_from_stopped for each in (Shrinkage, EmpiricalBayes, MonteCarlo)] == [False, True, False]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Shrinkage(strength=-1.0), r"`strength`.*0 or larger.*-1\.0"),
        (lambda: Shrinkage(momentum=0.0), r"`momentum`.*\(0, 1\].*0\.0"),
        (lambda: Shrinkage(momentum=1.5), r"`momentum`.*1\.5"),
        (lambda: EmpiricalBayes(size=2), r"`size`.*at least 3.*2"),
        (lambda: EmpiricalBayes(momentum=0.0), r"`momentum`.*\(0, 1\].*0\.0"),
        (lambda: EmpiricalBayes(floor=0.0), r"`floor`.*\(0, 1\].*0\.0"),
        (lambda: SelfConsistency(0), r"`num_teacher_rollouts`.*at least 1.*0"),
    ],
)
def test_impossible_settings_are_refused(build, said):
    with pytest.raises(ConfigError, match=said):
        build()
