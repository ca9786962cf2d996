import itertools
from fractions import Fraction

import pytest
import torch

from caopd.errors import ConfigError, DataError
from caopd.metrics import PassAtK
from caopd.metrics.functional import pass_at_k


@pytest.mark.parametrize("n", range(1, 8))
def test_it_is_the_share_of_subsets_that_hold_a_correct_completion(n):
    for k in range(1, n + 1):
        expected = []
        for c in range(n + 1):
            subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
            expected.append(sum(map(any, subsets)) / len(subsets))
        assert pass_at_k(torch.arange(n + 1), n, k).tolist() == pytest.approx(expected, abs=1e-15)


def test_many_completions_lose_no_digit():
    """The closed form as a product of fractions: binomials of 2,000 exceed every float."""
    n, k = 2000, 1000
    for c in (1, 2, 5):
        missed = Fraction(1)
        for i in range(n - c + 1, n + 1):
            missed *= 1 - Fraction(k, i)
        (found,) = pass_at_k(torch.tensor([c]), n, k).tolist()
        assert found == float(1 - missed)


def test_it_is_unbiased():
    """Over all outcomes of four completions with success rate p, its mean is 1 - (1 - p)^k."""
    p, n = 0.3, 4
    for k in range(1, n + 1):
        mean = sum(
            p ** sum(outcome) * (1 - p) ** (n - sum(outcome)) * float(pass_at_k(torch.tensor([sum(outcome)]), n, k))
            for outcome in itertools.product([0, 1], repeat=n)
        )
        assert mean == pytest.approx(1 - (1 - p) ** k)


def test_batches_equal_one_pass_and_the_keys_are_powers_of_two():
    counts = torch.randint(0, 13, (100,), generator=torch.Generator().manual_seed(0))
    metric = PassAtK(12)
    for batch in counts.split(17):
        metric.update(batch)
    values = metric.compute()
    assert list(values) == ["pass_at_1", "pass_at_2", "pass_at_4", "pass_at_8"]
    for name, value in values.items():
        mean = pass_at_k(counts, 12, int(name.removeprefix("pass_at_"))).mean()
        assert float(value) == pytest.approx(float(mean), abs=1e-12)
    assert float(values["pass_at_1"]) == pytest.approx(float((counts / 12).double().mean()))


@pytest.mark.parametrize("k", [0, 5])
def test_more_than_were_sampled_is_refused(k):
    for make in (lambda: pass_at_k(torch.tensor([1]), 4, k), lambda: PassAtK(4, ks=[1, k])):
        with pytest.raises(ConfigError, match=rf"`k`.*between 1 and .*4, but got {k}: sample more"):
            make()


@pytest.mark.parametrize("counts", [torch.tensor([5]), torch.tensor([-1]), torch.tensor([1.0]), torch.tensor([[1]])])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(DataError, match="`num_correct`"):
        PassAtK(4).update(counts)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_without_prompts_the_value_is_missing():
    assert PassAtK(2).compute()["pass_at_2"].isnan()
