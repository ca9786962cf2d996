"""Log-probabilities of given tokens from hidden states, a few tokens at a time.

Shape suffixes: T tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def target_logprobs(hidden_TH: Tensor, head_VH: Tensor, target_T: Tensor, chunk_size: int = 64) -> Tensor:
    """Return log softmax(W h_t) at the target of every token, nats; float32 [T], without gradients.

    Args:
        hidden_TH: Hidden states at the positions that predict the targets.
        head_VH: The output embedding.
        target_T: Token ids, int64.
        chunk_size: Tokens whose logits exist at a time.

    Example:
        >>> head = torch.tensor([[0.0], [torch.tensor(3.0).log()]])
        >>> target_logprobs(torch.ones(2, 1), head, torch.tensor([0, 1])).exp()
        tensor([0.2500, 0.7500])
    """
    chunks = zip(torch.split(hidden_TH, chunk_size), torch.split(target_T, chunk_size), strict=True)
    parts = [
        (hidden @ head_VH.T.to(hidden.dtype)).float().log_softmax(-1).gather(1, target[:, None])[:, 0]
        for hidden, target in chunks
    ]
    return torch.cat(parts) if parts else target_T.new_zeros(0, dtype=torch.float32)
