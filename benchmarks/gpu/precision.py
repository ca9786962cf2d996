"""How far bf16 is from float32.

Shape suffixes: B sequences, L tokens, T predicted tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from caopd.losses import ReverseKL
from gpu.sizes import Size


def measure(size: Size, device: str) -> Iterator[dict]:
    """Yield differences of log-probabilities, loss and gradient between bf16-mixed and float32."""
    for prompt, completion, group in size.groups:
        exact, rounded = (outcome(size, device, (prompt, completion, group), mixed) for mixed in (False, True))
        difference_T = (exact[0] - rounded[0]).abs()
        yield {
            "prompt": prompt,
            "completion": completion,
            "G": group,
            "log-probability, mean": difference_T.mean().item(),
            "log-probability, largest": difference_T.max().item(),
            "loss, relative": ((exact[1] - rounded[1]).abs() / exact[1].abs()).item(),
            "gradient, relative": ((exact[2] - rounded[2]).norm() / exact[2].norm()).item(),
        }


def outcome(size: Size, device: str, shape: tuple[int, int, int], mixed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities of the tokens, the divergence from a model with other weights, and its gradient."""
    prompt, completion, group = shape
    student, teacher = size.model(device), size.model(device)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.mul_(1.05)
    generator = torch.Generator().manual_seed(1)
    ids_BL = torch.randint(size.vocabulary, (group, prompt + completion), generator=generator).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=mixed):
        logits_BLV = student.hf(input_ids=ids_BL, use_cache=False).logits[:, prompt - 1 : -1].float()
        with torch.no_grad():
            taught_BLV = teacher.hf(input_ids=ids_BL, use_cache=False).logits[:, prompt - 1 : -1].float()
    loss = ReverseKL()(logits_BLV.flatten(0, 1), taught_BLV.flatten(0, 1)).mean()
    loss.backward()
    logprob_T = logits_BLV.detach().log_softmax(-1).gather(-1, ids_BL[:, prompt:, None]).flatten()
    gradient = torch.cat([weight.grad.flatten() for weight in student.parameters() if weight.grad is not None])
    return logprob_T, loss.detach(), gradient
