"""Gradients that the forward pass has formed already, and how they are handed to autograd.

Shape suffixes: T tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class LossGradients:
    """The gradients of the loss, divided by ``scale``, at least in float32.

    The weights of a loss are often below what float16 can hold, and a gradient formed in the forward pass has
    not seen the loss scaler yet. Weights relative to the largest one have no such trouble.

    Attributes:
        hidden_TH: Gradient with respect to the student's hidden states; ``None`` where none is asked for.
        head_VH: The same with respect to the student's head.
        scale: Scalar, the largest absolute weight.
        relative_weight_T: Weight of every token over ``scale``.
    """

    hidden_TH: Tensor | None
    head_VH: Tensor | None
    scale: Tensor
    relative_weight_T: Tensor

    @classmethod
    def wanted(cls, hidden_TH: Tensor, head_VH: Tensor, weight_T: Tensor) -> LossGradients | None:
        """Return zeros for the inputs that need a gradient now, or ``None`` if neither does."""
        if not (torch.is_grad_enabled() and (hidden_TH.requires_grad or head_VH.requires_grad)):
            return None
        dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
        weight_T = weight_T.detach().to(dtype)
        smallest = weight_T.new_full((1,), torch.finfo(dtype).tiny)
        scale = torch.cat([weight_T.abs(), smallest]).amax()
        return cls(_zeros_if_required(hidden_TH), _zeros_if_required(head_VH), scale, weight_T / scale)

    def add(self, hidden_TH: Tensor, head_VH: Tensor, rows_T: Tensor, logit_gradient_TV: Tensor) -> None:
        """Add the gradient of a chunk with respect to its logits, computed with the relative weights.

        Args:
            hidden_TH: Hidden states of the whole batch, in the dtype that matrix products run in.
            head_VH: The head, in the same dtype.
            rows_T: Indices of the chunk's tokens within the batch.
            logit_gradient_TV: Gradients with respect to their logits.
        """
        if self.hidden_TH is not None:
            hidden_gradient_TH = logit_gradient_TV @ head_VH
            self.hidden_TH[rows_T] = hidden_gradient_TH.to(self.hidden_TH.dtype)
        if self.head_VH is None:
            return
        if self.head_VH.dtype == hidden_TH.dtype:
            self.head_VH.addmm_(logit_gradient_TV.T, hidden_TH[rows_T])
        else:
            self.head_VH.add_(logit_gradient_TV.T @ hidden_TH[rows_T])


def with_gradients(loss: Tensor, hidden_TH: Tensor, head_VH: Tensor, gradients: LossGradients) -> Tensor:
    """Return the loss as a function of hidden states and head whose gradients are those given.

    The gradients are multiplied in place by what flows back, so that the head's exists once: a second
    backward pass through the same loss raises ``RuntimeError``.
    """
    apply: Callable[..., Tensor] = _KnownGradients.apply
    return apply(hidden_TH, head_VH, loss, gradients)


class _KnownGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden_TH: Tensor,
        head_VH: Tensor,
        loss: Tensor,
        gradients: LossGradients,
    ) -> Tensor:
        ctx.gradients = gradients
        ctx.dtypes = hidden_TH.dtype, head_VH.dtype
        return loss.clone()

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_output: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradients: LossGradients | None = ctx.gradients
        if gradients is None:
            raise RuntimeError(
                "Expected one backward pass through this loss, but got a second one. Compute the loss anew."
            )
        ctx.gradients = None
        factor = grad_output * gradients.scale
        hidden_dtype, head_dtype = ctx.dtypes
        return (
            None if gradients.hidden_TH is None else gradients.hidden_TH.mul_(factor).to(hidden_dtype),
            None if gradients.head_VH is None else gradients.head_VH.mul_(factor).to(head_dtype),
            None,
            None,
        )


def _zeros_if_required(x: Tensor) -> Tensor | None:
    if not x.requires_grad:
        return None
    return torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
