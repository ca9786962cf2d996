"""The chunk driver with divergences: against autograd through dense logits, and against finite differences."""

from dataclasses import dataclass, replace

import pytest
import torch

from caopd.errors import ConfigError
from caopd.losses import JSD, ForwardKL, LossInputs, ModelOutput, ReverseKL, TopK, chunk_tokens, chunked_divergence

REVERSE, FORWARD, MIXED = ReverseKL(), ForwardKL(), JSD(0.3)
TOP = [TopK(REVERSE, 4), TopK(FORWARD, 1), TopK(MIXED, 3)]
PAIRS = [(REVERSE, REVERSE), (FORWARD, FORWARD), (MIXED, MIXED), (REVERSE, FORWARD), (MIXED, REVERSE)]
PAIRS += [(TOP[0], TOP[0]), (TOP[0], TOP[1]), (TOP[2], MIXED)]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(map(str, pair)))


@dataclass
class Case:
    student_hidden: torch.Tensor
    student_head: torch.Tensor
    teacher_hidden: torch.Tensor
    teacher_head: torch.Tensor
    weight: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor

    @property
    def inputs(self):
        nowhere = torch.full_like(self.weight, torch.nan)
        return LossInputs(self.weight, self.mask, self.target, nowhere, nowhere, 1.0, torch.zeros_like(self.target))

    def chunked(self, body=REVERSE, confidence=REVERSE, **options):
        student = ModelOutput(self.student_hidden, self.student_head)
        teacher = ModelOutput(self.teacher_hidden, self.teacher_head)
        return chunked_divergence(student, teacher, self.inputs, body, confidence, **options)

    def dense(self, body=REVERSE, confidence=REVERSE):
        student, teacher = (
            self.student_hidden @ self.student_head.T,
            self.teacher_hidden @ self.teacher_head.T,
        )
        value = torch.where(
            self.mask,
            confidence(student, teacher),
            body(student, teacher),
        )
        return (value * self.weight).sum(), value, student, teacher


def make_case(tokens=11, vocabulary=23, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Case(
        torch.randn(tokens, 5, dtype=dtype, generator=g).requires_grad_(),
        torch.randn(vocabulary, 5, dtype=dtype, generator=g).requires_grad_(),
        torch.randn(tokens, 7, dtype=dtype, generator=g),
        torch.randn(vocabulary, 7, dtype=dtype, generator=g),
        torch.rand(tokens, dtype=dtype, generator=g),
        torch.rand(tokens, generator=g) < 0.4,
        torch.randint(vocabulary, (tokens,), generator=g),
    )


def gradients(loss, case):
    return torch.autograd.grad(loss, (case.student_hidden, case.student_head))


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 11, 64])
@every_pair
def test_equals_dense_in_value_and_gradients(pair, chunk_size):
    case = make_case()
    expected, value, student, teacher = case.dense(*pair)
    loss, statistics = case.chunked(*pair, chunk_size=chunk_size)
    close = {"rtol": 1e-10, "atol": 1e-13}
    torch.testing.assert_close(loss, expected, **close)
    torch.testing.assert_close(statistics.divergence_T, value.detach(), **close)
    torch.testing.assert_close(gradients(3 * loss, case), gradients(3 * expected, case), **close)
    student, teacher = student.detach(), teacher.detach()
    entropy = torch.distributions.Categorical(logits=torch.stack([student, teacher])).entropy()
    torch.testing.assert_close(statistics.student_entropy_T, entropy[0], **close)
    torch.testing.assert_close(statistics.teacher_entropy_T, entropy[1], **close)
    assert statistics.teacher_top1_T.tolist() == [row.index(max(row)) for row in teacher.tolist()]
    logprob = torch.distributions.Categorical(logits=torch.stack([student, teacher])).log_prob(case.target)
    torch.testing.assert_close(statistics.student_logprob_T, logprob[0], **close)
    torch.testing.assert_close(statistics.teacher_logprob_T, logprob[1], **close)
    assert not any(x.requires_grad for x in statistics)


def test_blocks_within_a_chunk_change_nothing(monkeypatch):
    case = make_case()
    expected_loss, expected = case.chunked(MIXED, FORWARD)
    expected_gradients = gradients(expected_loss, case)
    monkeypatch.setattr("caopd.losses.chunks._CPU_BLOCK", 2 * 23 + 1)
    loss, statistics = case.chunked(MIXED, FORWARD)
    torch.testing.assert_close((loss, *statistics), (expected_loss, *expected))
    torch.testing.assert_close(gradients(loss, case), expected_gradients)


@every_pair
def test_gradients_are_finite_differences(pair):
    case = make_case(tokens=3, vocabulary=4)
    analytic = gradients(case.chunked(*pair, chunk_size=2)[0], case)
    step = 1e-6
    for x, gradient in zip((case.student_hidden, case.student_head), analytic, strict=True):
        flat, numeric = x.detach().view(-1), torch.empty(x.numel(), dtype=x.dtype)
        for i, center in enumerate(flat.tolist()):
            sides = []
            for sign in (1, -1):
                flat[i] = center + sign * step
                sides.append(case.chunked(*pair)[0].item())
            flat[i] = center
            numeric[i] = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close(gradient.view(-1), numeric, rtol=1e-6, atol=1e-8)


def test_tied_head_adds_up_with_the_embedding():
    """The head also embeds: its gradient is the sum of both uses."""
    case = make_case()
    tokens = torch.arange(11) % 23

    def run(method):
        head = case.student_head.detach().clone().requires_grad_()
        tied = replace(case, student_head=head, student_hidden=torch.tanh(head[tokens]))
        getattr(tied, method)(REVERSE, FORWARD)[0].backward()
        return head.grad

    torch.testing.assert_close(run("chunked"), run("dense"), rtol=1e-10, atol=1e-13)


def test_float32_statistics_and_agreement():
    case = make_case(dtype=torch.float32, vocabulary=300)
    loss, statistics = case.chunked(REVERSE, MIXED, chunk_size=4)
    assert loss.dtype == statistics.divergence_T.dtype == torch.float32
    expected = case.dense(REVERSE, MIXED)[0]
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(loss, case), gradients(expected, case), rtol=1e-4, atol=1e-6)


def test_autocast_bfloat16():
    """Products in bfloat16, softmax and loss in float32, gradients in the parameters' dtype."""
    case = make_case(dtype=torch.float32, vocabulary=300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, statistics = case.chunked(REVERSE, FORWARD, chunk_size=4)
        expected = case.dense(REVERSE, FORWARD)[0]
    assert loss.dtype == statistics.divergence_T.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert abs(loss - case.dense(REVERSE, FORWARD)[0]) > 1e-5  # the products did run in bfloat16
    actual = gradients(loss, case)
    assert all(x.dtype == torch.float32 for x in actual)
    torch.testing.assert_close(actual, gradients(expected, case), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_parameters(dtype):
    case = make_case(tokens=40, dtype=dtype, vocabulary=300)
    actual = gradients(case.chunked(chunk_size=4)[0], case)
    assert all(x.dtype == dtype for x in actual)
    wide = Case(*(x.detach().float() if x.is_floating_point() else x for x in vars(case).values()))
    wide.student_hidden.requires_grad_(), wide.student_head.requires_grad_()
    expected = gradients(wide.dense()[0], wide)
    for a, b in zip(actual, expected, strict=True):
        assert (a.float() - b).norm() < 0.02 * b.norm()


def test_tiny_weights_survive_float16():
    """Weights below float16's smallest number, as a mean over many tokens has them, under a loss scale."""
    case = make_case(dtype=torch.float16)
    full = gradients(case.chunked()[0], case)
    tiny = replace(case, weight=case.weight.float() * 2.0**-26)
    scaled = gradients(tiny.chunked()[0] * 2.0**26, case)
    torch.testing.assert_close(scaled, full, rtol=1e-2, atol=1e-3)


def test_weight_zero_has_statistics_but_no_part_in_loss_or_gradients():
    """Not even where the divergence is infinite: the teacher cannot say token 1, the student can."""
    case = make_case()
    case.weight[[0, 4, 10]] = 0.0
    teacher_head = torch.zeros(23, 7, dtype=torch.float64)
    teacher_head[1] = -torch.inf
    case = replace(case, teacher_hidden=torch.ones_like(case.teacher_hidden), teacher_head=teacher_head)
    loss, statistics = case.chunked(REVERSE, FORWARD, chunk_size=4)
    reverse = ~case.mask
    assert statistics.divergence_T[reverse].isposinf().all()
    assert statistics.divergence_T[case.mask].isfinite().all()
    assert loss.isposinf()
    silent = replace(case, weight=case.weight * case.mask)
    loss, _ = silent.chunked(REVERSE, FORWARD, chunk_size=4)
    actual = gradients(loss, case)
    kept = (case.weight > 0) & case.mask
    expected = case.dense(FORWARD, FORWARD)[1][kept] @ case.weight[kept]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(actual, gradients(expected, case))


def test_no_tokens():
    case = make_case(tokens=0)
    loss, statistics = case.chunked(REVERSE, FORWARD)
    assert loss.item() == 0.0
    assert [len(x) for x in statistics] == [0] * 6
    hidden, head = gradients(loss, case)
    assert hidden.shape == (0, 5)
    assert not head.any()
    assert head.shape == (23, 5)


def test_gradients_only_where_required():
    case = make_case()
    expected = gradients(case.dense()[0], case)
    for name, index in (("student_hidden", 0), ("student_head", 1)):
        frozen = replace(case, **{name: getattr(case, name).detach()})
        loss, _ = frozen.chunked()
        loss.backward()
        assert getattr(frozen, name).grad is None
        other = (case.student_hidden, case.student_head)[1 - index]
        torch.testing.assert_close(other.grad, expected[1 - index])
    with torch.no_grad():
        loss, _ = case.chunked()
    assert not loss.requires_grad
    torch.testing.assert_close(loss, case.dense()[0].detach())


def test_the_teacher_gets_no_gradient():
    case = make_case()
    case.teacher_head.requires_grad_(), case.teacher_hidden.requires_grad_()
    case.chunked()[0].backward()
    assert case.teacher_head.grad is None
    assert case.teacher_hidden.grad is None


def test_a_second_backward_pass_raises():
    case = make_case()
    loss, _ = case.chunked()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second"):
        loss.backward()


def test_errors_say_the_sizes():
    case = make_case()
    with pytest.raises(ConfigError, match=r"23 rows.*20"):
        replace(case, teacher_head=case.teacher_head[:20]).chunked()
    with pytest.raises(ConfigError, match=r"11, but got \[10, 11\]"):
        replace(case, weight=case.weight[:10]).chunked()
    with pytest.raises(ConfigError, match=r"chunk_size.*larger than 0.*got 0"):
        case.chunked(chunk_size=0)


@every_pair
def test_no_tensor_grows_with_tokens_times_vocabulary(pair, largest_tensor):
    def largest(tokens, method, **options):
        case = make_case(tokens=tokens, vocabulary=500, dtype=torch.float32)
        with largest_tensor() as mode:
            getattr(case, method)(*pair, **options)[0].backward()
        return mode.largest

    assert largest(64, "dense") == 64 * 500  # the instrument sees the batch's logits
    for tokens in (64, 256):
        assert largest(tokens, "chunked", chunk_size=8) == 8 * 500


@pytest.mark.parametrize(("vocabulary", "on_cpu", "on_gpu"), [(100, 131072, 524288), (49152, 256, 1024), (2**25, 1, 2)])
def test_a_chunk_has_the_most_tokens_whose_logits_are_few_enough(vocabulary, on_cpu, on_gpu):
    assert (chunk_tokens(vocabulary, "cpu"), chunk_tokens(vocabulary, "cuda")) == (on_cpu, on_gpu)


def test_without_a_size_chunks_are_those_of_the_vocabulary(largest_tensor):
    case = make_case(tokens=160, vocabulary=2**18, dtype=torch.float32)
    with largest_tensor() as mode:
        case.chunked(REVERSE, REVERSE)
    assert mode.largest == 2**24 == 64 * 2**18
