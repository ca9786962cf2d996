import re
from collections import Counter

import pytest

from caopd.errors import ConfigError
from caopd.tasks import SPLITS, Arithmetic
from caopd.tasks.arithmetic import KINDS, Calculation

QUESTION = re.compile(r"What is (\d+) ([-+*/]) (\d+)\?")
ALL_KINDS = [
    *(f"{m}{operator}{n}" for operator in "+-*/" for m in (1, 2, 3, 4) for n in (1, 2, 3) if m >= n),
    *("1+3", "2*3"),
]
SIZES = {"num_train": 600, "num_validation": 60, "num_test": 80}


def all_of(task):
    return {split: task.examples(split) for split in SPLITS}


@pytest.fixture(scope="module")
def asked():
    return all_of(Arithmetic(**SIZES, kinds=ALL_KINDS))


def test_answers_are_right_and_whole(asked):
    """By Python's own arithmetic, on what a reader of the question sees."""
    for example in [each for examples in asked.values() for each in examples]:
        first, operator, second = QUESTION.fullmatch(example.question).groups()
        assert eval(f"{first} {operator} {second}") == int(example.target) >= 0
        assert example.demonstration == f"{example.id} = {example.target}"
        assert example.category == f"{len(first)}{operator}{len(second)}"
        assert example.id == f"{first} {operator} {second}"


def test_the_system_message_is_the_one_asked_for(asked):
    assert {example.system for examples in asked.values() for example in examples} == {None}
    assert {each.system for each in Arithmetic(9, 9, 9, system="You do sums.").examples("test")} == {"You do sums."}


def test_splits_have_the_sizes_asked_for_and_every_kind_equally(asked):
    assert {split: len(examples) for split, examples in asked.items()} == {"train": 600, "validation": 60, "test": 80}
    plenty = [kind for kind in ALL_KINDS if kind[0] in "34"]
    for examples in asked.values():
        counts = Counter(example.category for example in examples)
        assert max(counts[kind] for kind in plenty) - min(counts[kind] for kind in plenty) <= 1


def test_no_calculation_is_in_two_splits_whatever_the_seeds_and_either_way_round():
    kinds = ["1+1", "2+1", "1+2", "2*1", "1*2", "2-1", "2/1"]
    found = {split: set() for split in SPLITS}
    for seed in (0, 1):
        for split, examples in all_of(Arithmetic(200, 40, 40, seed=seed, kinds=kinds)).items():
            for example in examples:
                first, operator, second = QUESTION.fullmatch(example.question).groups()
                found[split].add((operator, *(sorted((first, second)) if operator in "+*" else (first, second))))
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]


def test_four_fifths_of_all_calculations_are_for_training():
    counts = Counter(Calculation(a, "-", b).split for a in range(200) for b in range(a))
    total = counts.total()
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert counts[split] / total == pytest.approx(share, abs=5 * (share * (1 - share) / total) ** 0.5)


def test_the_same_seed_gives_the_same_questions_and_a_prefix_of_more():
    assert Arithmetic(**SIZES).examples("train") == Arithmetic(**SIZES).examples("train")
    assert Arithmetic(num_train=50).examples("train") == Arithmetic(num_train=60).examples("train")[:50]
    assert Arithmetic(num_train=50, seed=1).examples("train") != Arithmetic(num_train=50).examples("train")


def test_the_default_task_has_a_thousand_test_questions_of_every_kind():
    examples = Arithmetic().examples("test")
    assert len({example.id for example in examples}) == 1_000
    assert {example.category for example in examples} == set(KINDS)


def test_a_kind_without_further_questions_gives_all_it_has_and_others_make_up_for_it():
    counts = Counter(example.category for example in Arithmetic(num_train=400, kinds=["1-1", "3-1"]).examples("train"))
    pairs = [Calculation(a, "-", b) for a in range(10) for b in range(a + 1)]
    assert counts["1-1"] == sum(pair.split == "train" for pair in pairs)
    assert counts.total() == 400


def test_more_questions_than_there_are_are_refused():
    with pytest.raises(ConfigError, match=r"only \d+ unique questions for the split 'test', but 99 .* `num_test`"):
        Arithmetic(num_test=99, kinds=["1*1"]).examples("test")


def test_a_demonstration_can_be_the_answer_alone():
    for example in Arithmetic(**SIZES, demonstration="answer").examples("test"):
        assert example.demonstration == example.target


def test_worked_demonstrations_are_true_line_by_line_and_end_with_the_result():
    task = Arithmetic(**SIZES, kinds=ALL_KINDS, demonstration="worked")
    for example in task.examples("train"):
        lines = example.demonstration.splitlines()
        for line in lines:
            way, _, result = line.partition(" = ")
            assert eval(way) == int(result)
        assert lines[-1] == f"{example.id} = {example.target}"


def test_worked_demonstrations_go_by_the_places_of_one_number():
    assert Calculation(47, "+", 385).worked() == "47 + 300 = 347\n347 + 80 = 427\n427 + 5 = 432\n47 + 385 = 432"
    assert Calculation(500, "-", 5).worked() == "500 - 5 = 495"
    assert Calculation(47, "*", 36).worked() == "47 * 30 = 1410\n47 * 6 = 282\n1410 + 282 = 1692\n47 * 36 = 1692"
    assert Calculation(432, "/", 8).worked() == "8 * 50 = 400\n8 * 4 = 32\n432 / 8 = 54"
    assert Calculation(7, "+", 0).worked() == "7 + 0 = 7"


@pytest.mark.parametrize("kind", ["2", "2+", "0+1", "10+1", "2^1", "1-2", "2/3", "2 + 1", ""])
def test_unknown_kinds_are_refused(kind):
    with pytest.raises(ConfigError, match=r"`kinds` of Arithmetic to be an operator .* as in 3\+2, but got"):
        Arithmetic(kinds=["1+1", kind])


@pytest.mark.parametrize("kinds", [[], ["1+1", "1+1"]])
def test_no_kind_and_a_kind_twice_are_refused(kinds):
    with pytest.raises(ConfigError, match="`kinds` of Arithmetic to be different kinds, at least one"):
        Arithmetic(kinds=kinds)


@pytest.mark.parametrize("name", ["num_train", "num_validation", "num_test"])
def test_empty_splits_are_refused(name):
    with pytest.raises(ConfigError, match=f"`{name}` of Arithmetic"):
        Arithmetic(**{name: 0})


def test_an_unknown_demonstration_is_refused():
    with pytest.raises(ConfigError, match="to be one of equation, worked, answer, but got 'long'"):
        Arithmetic(demonstration="long")
