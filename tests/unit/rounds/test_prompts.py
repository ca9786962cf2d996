from collections import Counter
from dataclasses import dataclass, field

import pytest

from caopd.errors import ConfigError, DataError, UserCodeError
from caopd.rounds.prompts import (
    Curriculum,
    check_rounds,
    prompt_indices,
    prompt_positions,
    stage_ends,
    stage_starts,
)
from caopd.seeds import derive_seed
from caopd.tasks import DrawTask, Stage, stages_of
from caopd.types import Example
from caopd.verifiers import ExactMatch


@dataclass
class Numbered:
    """So many rows, named by the task."""

    name: str
    number: int
    verifier: ExactMatch = field(default_factory=ExactMatch)

    def examples(self, split):
        assert split == "train"
        return [Example(f"{self.name}{n}", "Q", "A") for n in range(self.number)]


STAGES = [Stage("a", Numbered("a", 6), 3), Stage("b", Numbered("b", 4), 2), Stage("c", Numbered("c", 5), 1)]


def loaded(stages=STAGES, num_prompts=4, seed=0):
    curriculum = Curriculum(stages, num_prompts, seed)
    curriculum.load(lambda examples: None)
    return curriculum


@dataclass
class Broken(Numbered):
    """Raises what it is told to, or returns rows that are no examples."""

    error: Exception | None = None

    def examples(self, split):
        if self.error is not None:
            raise self.error
        return [*super().examples(split), {"id": "7"}]


def test_a_task_that_raises_or_returns_something_else_is_named():
    with pytest.raises(UserCodeError, match=r"test_prompts\.Broken .*split 'train'.*FileNotFoundError: rows") as error:
        loaded([Stage("a", Broken("a", 6, error=FileNotFoundError("rows.csv")), 1)])
    assert isinstance(error.value.__cause__, FileNotFoundError)
    with pytest.raises(DataError, match=r"Broken to return Examples for the split 'train', but got \{'id': '7'\}"):
        loaded([Stage("a", Broken("a", 6), 1)])


def test_the_number_of_the_round_decides_the_stage():
    rounds = [loaded().round(number) for number in (5, 0, 1, 2, 3, 4)]
    tasks = ["".join(sorted({example.id[0] for example in each.examples})) for each in rounds]
    assert tasks == ["c", "a", "a", "a", "b", "b"]
    for each, stage in zip(rounds, (2, 0, 0, 0, 1, 1), strict=True):
        assert each.verifier is STAGES[stage].task.verifier


def test_every_stage_passes_over_its_own_rows_as_if_it_stood_alone():
    curriculum = loaded()
    ids = [example.id for number in range(3) for example in curriculum.round(number).examples]
    assert Counter(ids) == {f"a{n}": 2 for n in range(6)}  # 12 prompts of 6 rows
    assert sorted(example.id for example in curriculum.round(3).examples) == ["b0", "b1", "b2", "b3"]
    alone = loaded(stages_of(STAGES[1].task))
    assert [curriculum.round(3 + n).examples for n in range(2)] == [alone.round(n).examples for n in range(2)]


def test_no_two_groups_share_a_seed():
    curriculum = loaded()
    seeds = [seed for number in range(6) for seed in curriculum.round(number).seeds]
    assert len(set(seeds)) == len(seeds) == 24


def test_one_task_is_sampled_as_the_stream_of_shuffled_passes_says():
    task = DrawTask(num_train=50, num_validation=1, num_test=1)
    curriculum, rows = loaded(stages_of(task), 16, seed=3), task.examples("train")
    for number in (0, 2, 7):
        positions = prompt_positions(number, 16)
        found = curriculum.round(number)
        assert list(found.examples) == [rows[index] for index in prompt_indices(positions, 50, 3)]
        assert list(found.seeds) == [derive_seed(3, "rollout", position) for position in positions]


def test_processes_share_a_round():
    whole = loaded().round(1)
    shares = [whole.share(rank, 2) for rank in range(2)]
    assert [example for each in shares for example in each.examples] == whole.examples
    assert [seed for each in shares for seed in each.seeds] == whole.seeds


def test_every_stage_needs_enough_rows_and_is_checked():
    with pytest.raises(ConfigError, match=r"`num_prompts_per_round` = 5 .*task of stage 'b' has 4"):
        loaded(num_prompts=5)
    with pytest.raises(ConfigError, match=r"but the task has 4"):
        loaded(stages_of(STAGES[1].task), num_prompts=5)
    seen = []
    Curriculum(STAGES, 4, 0).load(lambda examples: seen.append(len(examples)))
    assert seen == [6, 4, 5]


def test_starts_and_ends():
    assert stage_starts(STAGES) == [0, 3, 5]
    assert stage_ends(STAGES) == [3, 5, 6]


@pytest.mark.parametrize("max_epochs", [5, 7, None, -1])
def test_training_ends_with_the_last_stage(max_epochs):
    check_rounds(STAGES, 6, 1)
    check_rounds(STAGES, 6, 0)
    with pytest.raises(ConfigError, match=rf"max_epochs.*6 \(a 3, b 2, c 1\), but got {max_epochs}.*num_rounds"):
        check_rounds(STAGES, max_epochs, 1)


@pytest.mark.parametrize(
    ("every", "stage"), [(2, "'a' ends after round 3"), (3, "'b' ends after round 5"), (None, "'a'")]
)
def test_every_stage_ends_with_a_validation(every, stage):
    with pytest.raises(ConfigError, match=rf"{stage}.*check_val_every_n_epoch` is {every}: take a divisor of 3, 5, 6"):
        check_rounds(STAGES, 6, every)


@pytest.mark.parametrize(("num_examples", "num_prompts"), [(7, 3), (4, 4), (5, 2), (10, 1)])
def test_every_pass_over_the_data_is_a_permutation(num_examples, num_prompts):
    num_passes = 3
    stream = []
    for number in range(num_passes * num_examples // num_prompts + 1):
        stream += prompt_indices(prompt_positions(number, num_prompts), num_examples, seed=5)
    passes = [stream[n * num_examples : (n + 1) * num_examples] for n in range(num_passes)]
    for each in passes:
        assert sorted(each) == list(range(num_examples))
    assert len(set(map(tuple, passes))) > 1, "passes are shuffled anew"


def test_rounds_are_the_same_however_the_stream_is_cut_into_them():
    whole = prompt_indices(range(40), 9, seed=1)
    assert [index for n in range(8) for index in prompt_indices(prompt_positions(n, 5), 9, seed=1)] == whole
    assert prompt_indices(range(17, 23), 9, seed=1) == whole[17:23]


def test_the_order_comes_from_the_seed():
    assert prompt_indices(range(50), 50, seed=0) == prompt_indices(range(50), 50, seed=0)
    assert prompt_indices(range(50), 50, seed=0) != prompt_indices(range(50), 50, seed=1)
