"""The rules of the teacher: what it tells, and what a step changes of it."""

import copy

import pytest
import torch
from torch import nn

from caopd.errors import ConfigError, ModelError
from caopd.models import (
    EMA,
    External,
    Frozen,
    LanguageModel,
    Loader,
    LoRA,
    ModelSource,
    TrustRegion,
    make_teacher,
    update_teacher,
)
from caopd.models.packing import pack
from caopd.models.tiny import build_model, build_tokenizer


@pytest.fixture
def pair(policy):
    """A copy of the embedded model, and a student that has moved away from it."""
    student, g = copy.deepcopy(policy).train(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=g)
    return make_teacher(policy), student


@pytest.fixture(scope="module")
def batch():
    rows = torch.randint(10, 100, (3, 12), generator=torch.Generator().manual_seed(1)).tolist()
    return pack([row[:4] for row in rows], [row[4:length] for row, length in zip(rows, (12, 9, 5), strict=True)], 0)


def logits(output):
    hidden_TH, head_VH = output
    return hidden_TH.double() @ head_VH.double().T


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_the_trust_regions_logits_lie_between_those_of_reference_and_student(pair, batch, rate):
    reference, student = pair
    output = TrustRegion(rate).hidden_and_head(reference, student, batch)
    old_TV, new_TV = (
        model.hf(input_ids=batch.ids_BL).logits.flatten(0, 1)[batch.predictor_T].double()
        for model in (reference, student)
    )
    expected = torch.lerp(old_TV, new_TV, rate)
    torch.testing.assert_close(logits(output), expected.detach(), rtol=1e-4, atol=1e-4)
    powers_TV = old_TV.softmax(-1) ** (1 - rate) * new_TV.softmax(-1) ** rate
    probability_TV = powers_TV / powers_TV.sum(-1, keepdim=True)
    torch.testing.assert_close(logits(output).softmax(-1), probability_TV.detach(), rtol=1e-3, atol=1e-6)


def test_nothing_flows_back_to_the_student_and_its_mode_stays(pair, batch):
    reference, student = pair
    for module in student.modules():
        assert module.training
    output = TrustRegion(0.5).hidden_and_head(reference, student, batch)
    assert not any(x.requires_grad for x in output)
    assert all(module.training for module in student.modules())
    assert all(parameter.grad is None for parameter in student.parameters())


def test_the_students_part_is_that_of_evaluation(pair, batch):
    reference, student = pair
    for layer in student.hf.base_model.layers:
        layer.self_attn.attention_dropout = 0.5
    first, second = (logits(TrustRegion(0.5).hidden_and_head(reference, student, batch)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("teacher", [EMA(0.3), Frozen()], ids=repr)
def test_other_teachers_are_the_copy_alone(pair, batch, teacher):
    reference, student = pair
    for actual, expected in zip(
        teacher.hidden_and_head(reference, student, batch), reference.hidden_and_head(batch), strict=True
    ):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(("teacher", "share"), [(EMA(0.25), 0.25), (Frozen(), 0.0), (TrustRegion(0.5), 0.0)], ids=repr)
def test_a_step_moves_the_moving_average_alone(pair, teacher, share):
    reference, student = pair
    before = [parameter.clone() for parameter in reference.parameters()]
    teacher.update(reference, student)
    for old, now, new in zip(before, reference.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(now, old + share * (new.detach() - old), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [EMA, TrustRegion])
@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_out_of_range_is_refused(kind, rate):
    with pytest.raises(ConfigError, match=rf"`rate` of {kind.__name__}.*0 and 1.*{rate}"):
        kind(rate)


@pytest.fixture
def other(tmp_path):
    """Saves a smaller untrained model with the embedded one's tokenizer, changed on request."""

    def build(change=lambda model, tokenizer: None):
        torch.manual_seed(0)
        tokenizer = build_tokenizer()
        model = build_model(tokenizer, width=32, num_layers=1)
        change(model, tokenizer)
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return ModelSource(name_or_path=str(tmp_path))

    return build


def test_another_model_teaches_as_it_is(pair, batch, other, tokenizer):
    _, student = pair
    teacher = External(other())
    model = teacher.make(student, Loader(tokenizer))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    before = [parameter.clone() for parameter in model.parameters()]
    teacher.update(model, student)
    assert all(map(torch.equal, before, model.parameters()))
    hidden_TH, head_VH = teacher.hidden_and_head(model, student, batch)
    assert hidden_TH.shape[1] == 32
    assert len(head_VH) == len(student.hf.get_output_embeddings().weight)
    assert teacher.external
    assert teacher.max_length() == 512


def test_a_teacher_with_another_vocabulary_is_refused(pair, other, tokenizer):
    source = other(lambda model, tokenizer: tokenizer.add_tokens(["<|more|>"]))
    with pytest.raises(ModelError, match=r"student's tokenizer.*vocabularies differ.*`model.teacher.source`"):
        External(source).make(pair[1], Loader(tokenizer))


@pytest.mark.parametrize("tied", [True, False])
def test_a_teacher_with_a_padded_head_teaches_the_students_rows(pair, batch, other, tokenizer, tied):
    rows, whole = len(tokenizer), []

    def pad(model, tokenizer):
        model.config.tie_word_embeddings = tied
        if not tied:
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() * 1.5)
        model.resize_token_embeddings(rows + 8)
        with torch.no_grad():
            model.get_output_embeddings().weight[rows:] = 9.0
        whole.append(LanguageModel(model.eval(), (0,), 0))

    source = other(pad)
    hidden_TH, head_VH = whole[0].hidden_and_head(batch)
    teacher = External(source)
    model = teacher.make(pair[1], Loader(tokenizer))
    found_TH, found_head_VH = teacher.hidden_and_head(model, pair[1], batch)
    assert len(found_head_VH) == rows
    torch.testing.assert_close(found_TH @ found_head_VH.T, (hidden_TH @ head_VH.T)[:, :rows])
    assert model.hf.config.vocab_size == rows  # as an engine that samples from the teacher is told


def test_a_student_with_a_padded_head_is_refused_another_model_as_its_teacher(pair, other, tokenizer):
    rows = len(tokenizer)
    student = build_model(tokenizer, width=32, num_layers=1)
    student.resize_token_embeddings(rows + 8)
    with pytest.raises(ModelError, match=rf"at least as many rows as the student's, {rows + 8}, but it has {rows}.*"):
        External(other()).make(LanguageModel(student, (0,), 0), Loader(tokenizer))


def test_a_copy_has_no_length_of_its_own(pair, tokenizer):
    for teacher in (EMA(), Frozen(), TrustRegion()):
        assert teacher.max_length() == float("inf")
        assert not teacher.external
        made = teacher.make(pair[1], Loader(tokenizer))
        assert all(map(torch.equal, made.parameters(), pair[1].parameters()))


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.25, 0.5])
def test_a_moving_average_that_rounding_would_stop_is_refused(rate, tokenizer):
    student = ModelSource(dtype="bfloat16").load_model(tokenizer)
    with pytest.raises(
        ConfigError, match=rf"float32.*torch\.bfloat16.*rate {rate} .*`model\.source\.dtype`.*TrustRegion"
    ):
        EMA(rate).make(student, Loader(tokenizer))


@pytest.mark.parametrize(("dtype", "eps"), [(torch.bfloat16, 2.0**-7), (torch.float32, 2.0**-23)])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5])
def test_a_step_vanishes_where_the_student_is_at_most_so_many_units_away(rate, dtype, eps):
    """By enumeration of all distances, in units in the last place of a weight of 1."""
    teacher, student = nn.Linear(200, 1, bias=False).to(dtype), nn.Linear(200, 1, bias=False).to(dtype)
    units = torch.arange(1, 201)
    with torch.no_grad():
        teacher.weight.fill_(1.0)
        student.weight.copy_((1 + units.double() * eps)[None])
        student.weight[0, units >= 1 / eps] = 1.0  # beyond 2 the units are larger
    update_teacher(teacher, student, rate)
    moved = (teacher.weight[0] != 1.0) | (units >= 1 / eps)
    limit = 1 / (2 * rate)
    assert not moved[units < limit * 0.999].any(), "the message is right"
    assert moved[units > limit * 1.001].all(), "and so is its limit"


def test_adapters_are_float32_and_a_moving_average_follows_them(tokenizer):
    student = ModelSource(dtype="bfloat16", lora=LoRA(rank=2)).load_model(tokenizer)
    dtypes = {(weight.requires_grad, weight.dtype) for weight in student.parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    teacher = EMA(0.01).make(student, Loader(tokenizer))
    before = [weight.clone() for weight in teacher.parameters()]
    with torch.no_grad():
        for weight in student.parameters():
            if weight.requires_grad:
                weight += 1e-3
    EMA(0.01).update(teacher, student)
    for old, now, trained in zip(before, teacher.parameters(), student.parameters(), strict=True):
        expected = old + 1e-5 if trained.requires_grad else old
        torch.testing.assert_close(now, expected, rtol=0, atol=2e-7)


def test_a_rate_that_looks_like_a_decay_gives_a_warning(policy, tokenizer, recwarn):
    for rate in (0.0, 0.01, 0.89, 1.0):
        EMA(rate).make(policy, Loader(tokenizer))
    assert not recwarn
    with pytest.warns(UserWarning, match=r"rate` of 0\.995.*Is 0\.005 meant"):
        EMA(0.995).make(policy, Loader(tokenizer))


def test_a_teacher_that_follows_or_stays_is_made_of_narrow_weights_too(policy, tokenizer):
    narrow = copy.deepcopy(policy).to(torch.bfloat16)
    EMA(0.05).make(policy, Loader(tokenizer))
    for teacher in (EMA(0.0), EMA(0.6), EMA(1.0), Frozen(), TrustRegion()):
        teacher.make(narrow, Loader(tokenizer))
