"""Logits of a few tokens at a time, from hidden states and heads.

Shape suffixes: T tokens (of the batch or of one chunk), V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from caopd.losses.gradients import LossGradients

_CPU_BLOCK = 2**21
"""Elements of the logits that the softmax takes at a time on a CPU: temporaries of 8 MB stay in its cache and
come from the allocator's pool, where those of a whole chunk would be fresh pages each time."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A model's next-token distributions, unfinished: softmax(W h_t).

    Attributes:
        hidden_TH: Last hidden states, after the final norm.
        head_VH: Output embedding; a tied head is just the same tensor.
    """

    hidden_TH: Tensor
    head_VH: Tensor

    def operands(self) -> ModelOutput:
        """Return both as autocast would hand them to a matrix product, cut off from their history."""
        return ModelOutput(_matmul_operand(self.hidden_TH), _matmul_operand(self.head_VH))


BlockFunction = Callable[[Tensor, Tensor | None, Tensor], None]
"""Takes logits of the student and of the teacher (None without one) [T, V] and their rows [T]; where gradients are
formed, it overwrites the student's logits by the loss's gradient with respect to them."""


def run_chunk(
    student: ModelOutput,
    teacher: ModelOutput | None,
    rows_T: Tensor,
    consume: BlockFunction,
    gradients: LossGradients | None,
) -> None:
    """Make the logits of some tokens, hand them to ``consume`` block by block, and take the gradients in.

    Args:
        student: Operands of the trained model.
        teacher: Operands of the other one, None without one.
        rows_T: Which tokens, int64.
        consume: What is done with logits.
        gradients: Of the loss, None where none are asked for.
    """
    student_TV = student.hidden_TH[rows_T] @ student.head_VH.T
    on_cpu = student_TV.device.type == "cpu"
    block_size = max(1, _CPU_BLOCK // student_TV.shape[1]) if on_cpu else len(rows_T)
    student_blocks = torch.split(student_TV, block_size)
    teacher_blocks: tuple[Tensor | None, ...] = (None,) * len(student_blocks)
    if teacher is not None:
        teacher_blocks = torch.split(teacher.hidden_TH[rows_T] @ teacher.head_VH.T, block_size)
    blocks = zip(student_blocks, teacher_blocks, torch.split(rows_T, block_size), strict=True)
    for student_block_TV, teacher_block_TV, block_rows_T in blocks:
        consume(student_block_TV, teacher_block_TV, block_rows_T)
    if gradients is not None:
        gradients.add(student.hidden_TH, student.head_VH, rows_T, student_TV)


def _matmul_operand(x: Tensor) -> Tensor:
    x, kind = x.detach(), x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(kind))
    return x
