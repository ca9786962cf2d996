"""Laws of the moving average, for any weights and rates."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from caopd.models import update_teacher

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)
VALUES = st.floats(-1e3, 1e3, width=32)
RATES = st.floats(0, 1)


def model_of(values):
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor(values, dtype=torch.float32))
    module.bias = nn.Parameter(torch.tensor([sum(values)], dtype=torch.float32))
    return module


def flat(module):
    return torch.cat([parameter.detach() for parameter in module.parameters()])


PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5)


@SETTINGS
@given(values=st.lists(VALUES, min_size=1, max_size=5), rate=RATES, num_steps=st.integers(1, 20))
def test_equal_weights_are_a_fixed_point(values, rate, num_steps):
    teacher, student = model_of(values), model_of(values)
    for _ in range(num_steps):
        update_teacher(teacher, student, rate)
    assert torch.equal(flat(teacher), flat(student))


@SETTINGS
@given(pairs=PAIRS, rate=RATES)
def test_an_update_is_the_weighted_mean_in_float64(pairs, rate):
    teacher, student = model_of([a for a, _ in pairs]), model_of([b for _, b in pairs])
    expected = (1 - rate) * flat(teacher).double() + rate * flat(student).double()
    update_teacher(teacher, student, rate)
    torch.testing.assert_close(flat(teacher).double(), expected, rtol=1e-6, atol=1e-3)


@SETTINGS
@given(pairs=PAIRS, rate=RATES)
def test_the_teacher_stays_between_itself_and_the_student(pairs, rate):
    teacher, student = model_of([a for a, _ in pairs]), model_of([b for _, b in pairs])
    low, high = torch.minimum(flat(teacher), flat(student)), torch.maximum(flat(teacher), flat(student))
    update_teacher(teacher, student, rate)
    slack = 1e-6 * (1 + high.abs() + low.abs())
    assert ((flat(teacher) >= low - slack) & (flat(teacher) <= high + slack)).all()


@SETTINGS
@given(pairs=PAIRS, rate=st.floats(0.05, 1))
def test_a_student_that_rests_is_reached(pairs, rate):
    teacher, student = model_of([a for a, _ in pairs]), model_of([b for _, b in pairs])
    distance = (flat(teacher).double() - flat(student).double()).abs()
    for _ in range(50):
        update_teacher(teacher, student, rate)
    remaining = (flat(teacher).double() - flat(student).double()).abs()
    assert (remaining <= distance * (1 - rate) ** 50 * 1.01 + 1e-2).all()
