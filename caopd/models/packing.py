"""Rows of token ids in which a prompt stands once, however many completions follow it.

The rollouts of a group share their prompt. As one sequence each, a model would read it once for every rollout; as a
*tree* it reads it once: the prompt is the *trunk*, and every completion is a *branch*, whose tokens see the trunk and
what precedes them in their own branch. Their positions go on where the trunk ends, so hidden states and gradients are
those of separate sequences, up to rounding. A row holds one or several trees, which do not see each other.

Shape suffixes: B rows, L length of the rows, T completion tokens of all sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from caopd.models.layout import Layout, PackingCost, lay_out

MASKED_ATTENTION = ("sdpa", "eager", "flex_attention")
"""Names, in transformers, of the implementations of attention that take any mask."""
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class PackedSequences:
    """Sequences of a prompt and a completion, as rows that a model reads at once.

    Attributes:
        ids_BL: Token ids, long; rows are padded on the right.
        branch_BL: Number, within its row, of the prompt or the completion that the token is of; -1 at padding.
        trunk_BL: Number of the prompt that it follows, at a prompt's token the prompt's own; -1 at padding.
        position_BL: Position of the token in its sequence, from 0.
        predictor_T: Where the token stands *before* each completion token, in the flattened rows: sequence by sequence,
            in the order in which they were given. Completions of one prompt have their first predictor in common.
        is_plain: Whether every row is a single sequence, so that causal attention is all that is needed.
    """

    ids_BL: Tensor
    branch_BL: Tensor
    trunk_BL: Tensor
    position_BL: Tensor
    predictor_T: Tensor
    is_plain: bool

    @property
    def num_positions(self) -> float:
        """Number of positions of all rows."""
        return float(self.ids_BL.numel())

    @property
    def share_of_tokens(self) -> Tensor:
        """Share of the positions that hold a token and not padding, a scalar."""
        return (self.branch_BL >= 0).float().mean()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str, **arguments: Any) -> PackedSequences:  # noqa: ANN401 (Tensor.to's own)
        """Return the sequences on ``device``."""
        moved = {name: value.to(device, **arguments) for name, value in self.tensors().items()}
        return PackedSequences(**moved, is_plain=self.is_plain)


def pack(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    pad_token_id: int,
    cost: PackingCost | None = None,
) -> PackedSequences:
    """Return the sequences as rows, prompts shared where that costs less.

    Args:
        prompts: Token ids of the prompt of every sequence, at least one each; equal ones can be shared.
        completions: Token ids of the completion of every sequence.
        pad_token_id: Id that fills the right of shorter rows.
        cost: What reading rows costs the model; None makes a row of every sequence, which any model can read.

    Example:
        >>> packed = pack([[1, 2], [1, 2]], [[3], [4, 5]], pad_token_id=0, cost=PackingCost(pair=0.0))
        >>> packed.ids_BL, packed.position_BL
        (tensor([[1, 2, 3, 4, 5]]), tensor([[0, 1, 2, 2, 3]]))
        >>> packed.branch_BL, packed.trunk_BL
        (tensor([[0, 0, 1, 2, 2]]), tensor([[0, 0, 0, 0, 0]]))
        >>> packed.predictor_T  # of 3, 4 and 5
        tensor([1, 1, 3])
    """
    layout = lay_out([tuple(prompt) for prompt in prompts], [len(completion) for completion in completions], cost)
    return packed(layout, prompts, completions, pad_token_id)


def packed(
    layout: Layout, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad_token_id: int
) -> PackedSequences:
    """Return the sequences in the rows that a layout says.

    Args:
        layout: Which sequences stand in which row.
        prompts: Token ids of the prompt of every sequence.
        completions: Token ids of the completion of every sequence.
        pad_token_id: Id that fills the right of shorter rows.
    """
    rows = []
    predictors: list[list[int]] = [[] for _ in prompts]
    for number, row in enumerate(layout.rows):
        rows.append(_filled(row, prompts, completions, number * layout.length, predictors))
    ids, branches, trunks, positions = zip(*rows, strict=True)
    return PackedSequences(
        ids_BL=_padded(ids, pad_token_id, layout.length),
        branch_BL=_padded(branches, -1, layout.length),
        trunk_BL=_padded(trunks, -1, layout.length),
        position_BL=_padded(positions, 0, layout.length),
        predictor_T=torch.tensor([each for some in predictors for each in some], dtype=torch.long),
        is_plain=layout.is_plain,
    )


def _filled(
    row: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    start: int,
    predictors: list[list[int]],
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return ids, branches, trunks and positions of a row that begins at ``start``; note down the predictors."""
    ids: list[int] = []
    branches: list[int] = []
    trunks: list[int] = []
    positions: list[int] = []
    branch = 0
    for tree in row:
        prompt, trunk = prompts[tree[0]], branch
        ids += prompt
        branches += [trunk] * len(prompt)
        positions += range(len(prompt))
        last = start + len(ids) - 1
        for sequence in tree:
            branch, completion = branch + 1, completions[sequence]
            if completion:
                predictors[sequence] = [last, *range(start + len(ids), start + len(ids) + len(completion) - 1)]
            ids += completion
            branches += [branch] * len(completion)
            positions += range(len(prompt), len(prompt) + len(completion))
        trunks += [trunk] * (len(ids) - len(trunks))
        branch += 1
    return ids, branches, trunks, positions


def _padded(rows: Sequence[Sequence[int]], filler: int, length: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def attention_masks(sequences: PackedSequences, config: PretrainedConfig, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Return what a model takes as its ``attention_mask``, or as one for every kind of its layers.

    The mask has the form of the model's implementation of attention: boolean or additive [B, 1, L, L], or a block mask.

    Args:
        sequences: The rows.
        config: The text model's configuration.
        dtype: Dtype of the hidden states.
    """
    if sequences.is_plain:
        return None  # causal; what pads a row on the right is seen by nothing before it
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])
    if _SLIDING in kinds:
        return {_FULL: _mask(sequences, config, dtype, None), _SLIDING: _mask(sequences, config, dtype, window)}
    return _mask(sequences, config, dtype, None if kinds else window)


def can_share(config: PretrainedConfig) -> bool:
    """Return whether the model's attention takes any mask, and each of its layers is one of attention.

    Args:
        config: The text model's configuration.
    """
    kinds = set(getattr(config, "layer_types", None) or [])
    return config._attn_implementation in MASKED_ATTENTION and kinds <= {_FULL, _SLIDING}


def _mask(sequences: PackedSequences, config: PretrainedConfig, dtype: torch.dtype, window: int | None) -> Any:  # noqa: ANN401
    rows, length = sequences.ids_BL.shape
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=rows,
        q_length=length,
        kv_length=length,
        mask_function=_visible(sequences, window),
        allow_is_causal_skip=False,
        dtype=dtype,
        device=sequences.ids_BL.device,
        config=config,
    )


def _visible(sequences: PackedSequences, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the function of row, head, query and key that says whether the query sees the key."""
    branch_BL, trunk_BL, position_BL = sequences.branch_BL, sequences.trunk_BL, sequences.position_BL

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        branch = branch_BL[row, key]
        distance = position_BL[row, query] - position_BL[row, key]
        seen = ((branch == branch_BL[row, query]) | (branch == trunk_BL[row, query])) & (distance >= 0)
        return seen if window is None else seen & (distance < window)

    return visible
