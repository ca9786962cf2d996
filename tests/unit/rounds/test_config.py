import pytest

from caopd.errors import ConfigError
from caopd.rounds.config import AdaptiveBudget, RoundConfig


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_prompts_per_round": 0}, r"`num_prompts_per_round`.*at least 1.*0"),
        ({"num_rollouts": 0}, r"`num_rollouts`.*at least 1.*0"),
        ({"num_rollouts": 4, "num_trained_rollouts": 5}, r"`num_trained_rollouts`.*between 1.*4.*5"),
        ({"num_trained_rollouts": 0}, r"`num_trained_rollouts`.*0"),
        ({"adaptive": AdaptiveBudget(4)}, r"`num_trained_rollouts`.*smallest group.*= 4.*None"),
        ({"adaptive": AdaptiveBudget(4), "num_trained_rollouts": 5}, r"`num_trained_rollouts`.*= 4.*5"),
        ({"adaptive": AdaptiveBudget(3), "num_trained_rollouts": 1}, r"= 8 to be a multiple.*3"),
        ({"adaptive": AdaptiveBudget(16), "num_trained_rollouts": 1}, r"= 8 to be a multiple.*16"),
    ],
)
def test_impossible_sizes_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        RoundConfig(**arguments)


@pytest.mark.parametrize("arguments", [(0, 0.1), (4, 0.0), (4, 0.5)])
def test_an_impossible_budget_is_refused(arguments):
    with pytest.raises(ConfigError, match=r"`max_deviation`.*\(0, 0\.5\).*data\.round\.adaptive"):
        AdaptiveBudget(*arguments)


def test_an_adaptive_round_has_as_many_samples_as_any():
    config = RoundConfig(12, 16, 2, AdaptiveBudget(4))
    assert (config.num_samples, config.smallest_group) == (24, 4)
    assert RoundConfig(12, 16).smallest_group == 16


@pytest.mark.parametrize(("trained", "expected"), [(None, 96), (1, 12), (8, 96), (3, 36)])
def test_the_number_of_samples_counts_trained_rollouts(trained, expected):
    assert RoundConfig(12, 8, trained).num_samples == expected
