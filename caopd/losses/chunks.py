"""The loop that every loss runs through: a few tokens (a *chunk*) at a time, with gradients formed in the forward pass.

A batch's logits over a vocabulary of 151,936 cost 0.6 MB per token and model and several times that with
autograd. Here only one chunk of them exists at a time: memory beyond the gradients themselves does not grow
with the number of tokens.

Shape suffixes: T tokens (of the batch or of one chunk), V vocabulary, H hidden size (student and teacher may
differ).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.distributions import log_probabilities
from caopd.losses.gradients import LossGradients, with_gradients

CHUNK_ELEMENTS = {"cpu": 2**24, "cuda": 2**26}
"""Kind of device -> logits of a model that a chunk has, at most. Measured (``benchmarks/loss.py``, docs/cost.md): on an
H200 a vocabulary of 151,936 takes half the time with chunks of 256 tokens, these, as with 64, and with 1,024 a fifth
less at three times the memory."""
_CPU_BLOCK = 2**21
"""Elements of the logits that the softmax takes at a time on a CPU. Its temporaries of 8 MB then stay in the cache and
come from the allocator's pool; those of a whole chunk would be newly mapped pages each time."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A model's next-token distributions before the last step: they are softmax(W h_t), with h_t and W stored here.

    Attributes:
        hidden_TH: Last hidden states h_t, after the final norm.
        head_VH: Output embedding W; a head that is tied to the input embedding is the same tensor.
    """

    hidden_TH: Tensor
    head_VH: Tensor

    def operands(self) -> ModelOutput:
        """Return both tensors as autocast would hand them to a matrix product, detached from autograd's graph."""
        return ModelOutput(_matmul_operand(self.hidden_TH), _matmul_operand(self.head_VH))

    def zeros_T(self) -> Tensor:
        """Return a zero for every token, in the dtype of log-probabilities: float32, or float64 for float64."""
        dtype = torch.promote_types(self.hidden_TH.dtype, torch.float32)
        return torch.zeros(len(self.hidden_TH), dtype=dtype, device=self.hidden_TH.device)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next-token distributions of a few tokens.

    Attributes:
        rows_T: Indices of the tokens within the batch, int64.
        student_TV: Log-probabilities of the student, float32 or float64.
        teacher_TV: Log-probabilities of the teacher, None without one.
    """

    rows_T: Tensor
    student_TV: Tensor
    teacher_TV: Tensor | None


def chunk_tokens(vocabulary: int, device: str) -> int:
    """Return the tokens of a chunk where none are asked for: the largest power of two whose logits are few enough.

    Args:
        vocabulary: Rows of the head.
        device: Kind of device, as ``torch.device.type`` names it.

    Example:
        >>> chunk_tokens(151_936, "cpu"), chunk_tokens(151_936, "cuda")
        (64, 256)
    """
    most = CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"]) // vocabulary
    return 1 << max(0, most.bit_length() - 1)


class TokenTerm(NamedTuple):
    """What some tokens add to the loss.

    Attributes:
        value_T: The value of each token, unweighted.
        gradient_TV: Gradient of the values with respect to the student's logits, which the caller changes in place;
            None where nothing is differentiated.
    """

    value_T: Tensor
    gradient_TV: Tensor | None


Objective = Callable[[Chunk], TokenTerm]
"""What is summed over tokens and differentiated; it may keep statistics of its own on the way."""


class Part(NamedTuple):
    """An objective, and the indices (int64) of the tokens that it is summed over; None is all of the batch."""

    objective: Objective
    rows_T: Tensor | None = None


def chunked_loss(
    student: ModelOutput,
    teacher: ModelOutput | None,
    weight_T: Tensor,
    parts: Sequence[Part],
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return sum_t weight_t x_t, and every x_t, where x_t is a function of a token's distributions.

    The logits of the whole batch never exist, only those of a chunk.

    Gradients flow to the student's hidden states and head only, and are formed only where they are required. They are
    scaled in place in the backward pass, so it runs once: a second one through the same loss raises. Under autocast
    the matrix products run in its dtype and the softmax in float32. A token of weight 0 has a value, and no part in
    loss or gradients even where that is infinite. An infinite value of positive weight makes the loss ``inf`` and
    the gradients NaN.

    Args:
        student: Hidden states and head of the trained model.
        teacher: The same of another model, over the same vocabulary and for the same tokens; None without one.
        weight_T: Weight of every token in the loss.
        parts: What is summed over which tokens; together the parts name every token once.
        chunk_size: Tokens whose logits exist at a time. A chunk reads and writes the head's whole gradient,
            so larger chunks are faster where matrix products are fast. None takes :func:`chunk_tokens`.

    Returns:
        The scalar loss and the values [T], detached; float32, or float64 for float64 inputs.

    Raises:
        ConfigError: Vocabularies or token counts that differ, or ``chunk_size`` below 1.
    """
    _check(student, teacher, weight_T, chunk_size)
    chunk_size = chunk_size or chunk_tokens(len(student.head_VH), weight_T.device.type)
    gradients = LossGradients.wanted(student.hidden_TH, student.head_VH, weight_T)
    value_T = student.zeros_T()
    operands, others = student.operands(), None if teacher is None else teacher.operands()
    with torch.no_grad(), torch.autocast(weight_T.device.type, enabled=False):
        for objective, part_T in parts:
            every_T = torch.arange(len(weight_T), device=weight_T.device) if part_T is None else part_T
            for rows_T in torch.split(every_T, chunk_size):
                if len(rows_T):
                    value_T[rows_T] = _run_chunk(operands, others, rows_T, objective, gradients)
        loss = (value_T.masked_fill(weight_T == 0, 0.0) * weight_T.to(value_T.dtype)).sum()
    if gradients is not None:
        loss = with_gradients(loss, student.hidden_TH, student.head_VH, gradients)
    return loss, value_T


def _run_chunk(
    student: ModelOutput,
    teacher: ModelOutput | None,
    rows_T: Tensor,
    objective: Objective,
    gradients: LossGradients | None,
) -> Tensor:
    """Make the logits of a chunk, run the objective block by block, add up the gradients, and return the values."""
    student_TV = student.hidden_TH[rows_T] @ student.head_VH.T
    on_cpu = student_TV.device.type == "cpu"
    block_size = max(1, _CPU_BLOCK // student_TV.shape[1]) if on_cpu else len(rows_T)
    student_blocks = torch.split(student_TV, block_size)
    teacher_blocks: tuple[Tensor | None, ...] = (None,) * len(student_blocks)
    if teacher is not None:
        teacher_blocks = torch.split(teacher.hidden_TH[rows_T] @ teacher.head_VH.T, block_size)
    blocks = zip(torch.split(rows_T, block_size), student_blocks, teacher_blocks, strict=True)
    value_T = torch.cat([_run_block(*block, objective, gradients) for block in blocks])
    if gradients is not None:
        gradients.add(student.hidden_TH, student.head_VH, rows_T, student_TV)
    return value_T


def _run_block(
    rows_T: Tensor,
    student_logits_TV: Tensor,
    teacher_logits_TV: Tensor | None,
    objective: Objective,
    gradients: LossGradients | None,
) -> Tensor:
    """Return the values of a block; its gradients, times the tokens' weights, overwrite the student's logits."""
    teacher_TV = None if teacher_logits_TV is None else log_probabilities(teacher_logits_TV)
    term = objective(Chunk(rows_T, log_probabilities(student_logits_TV), teacher_TV))
    assert term.value_T.shape == rows_T.shape
    if gradients is not None:
        assert term.gradient_TV is not None
        weight_T1 = gradients.relative_weight_T[rows_T].unsqueeze(-1)
        student_logits_TV.copy_(term.gradient_TV.mul_(weight_T1).masked_fill_(weight_T1 == 0, 0.0))
    return term.value_T


def _matmul_operand(x: Tensor) -> Tensor:
    x, kind = x.detach(), x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(kind))
    return x


def _check(student: ModelOutput, teacher: ModelOutput | None, weight_T: Tensor, chunk_size: int | None) -> None:
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"Expected `chunk_size` to be an integer larger than 0, but got {chunk_size}.")
    if teacher is not None and len(student.head_VH) != len(teacher.head_VH):
        raise ConfigError(
            "Expected student and teacher to share one vocabulary, but the student's head has "
            f"{len(student.head_VH)} rows and the teacher's {len(teacher.head_VH)}. Use a teacher "
            "with the student's tokenizer, and cut rows that only pad the larger head."
        )
    counts = [len(weight_T), *([] if teacher is None else [len(teacher.hidden_TH)])]
    if any(count != len(student.hidden_TH) for count in counts):
        raise ConfigError(
            f"Expected as many weights and teacher states as the student has tokens, {len(student.hidden_TH)}, but got "
            f"{counts}."
        )
