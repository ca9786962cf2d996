"""Log-probabilities of given tokens from hidden states, a few tokens at a time.

Shape suffixes: T tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caopd.losses.chunks import Chunk, ModelOutput, Part, TokenTerm, chunked_loss
from caopd.losses.distributions import log_probability_of


@torch.no_grad()
def target_logprobs(output: ModelOutput, target_T: Tensor, chunk_size: int | None = None) -> Tensor:
    """Return log softmax(W h_t) at the target of every token [T], nats, without gradients.

    Args:
        output: The head, and hidden states at the positions that predict the targets.
        target_T: Token ids, int64.
        chunk_size: Tokens whose logits exist at a time; None chooses by vocabulary and device.

    Returns:
        Float32, or float64 for float64 hidden states.

    Example:
        >>> output = ModelOutput(torch.ones(2, 1), torch.tensor([[0.0], [torch.tensor(3.0).log()]]))
        >>> target_logprobs(output, torch.tensor([0, 1])).exp()
        tensor([0.2500, 0.7500])
    """

    def objective(chunk: Chunk) -> TokenTerm:
        return TokenTerm(log_probability_of(chunk.student_TV, target_T[chunk.rows_T]), None)

    no_weight_T = torch.zeros(len(target_T), device=target_T.device)
    _, logprob_T = chunked_loss(output, None, no_weight_T, [Part(objective)], chunk_size)
    return logprob_T
