"""What a process must know of a model that another one has loaded, to make the same model without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from caopd.errors import ModelError
from caopd.models.language_model import LanguageModel


class WeightFacts(NamedTuple):
    """What a weight is, but for its values."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    is_trained: bool


@dataclass(frozen=True)
class ModelFacts:
    """What a loaded model says of itself; it can be sent to other processes.

    Attributes:
        stop_token_ids: Every id that ends a completion.
        pad_token_id: Id that fills the left of shorter prompts.
        can_share: Whether completions may share a prompt.
        weights: Its parameters, then its buffers.
    """

    stop_token_ids: tuple[int, ...]
    pad_token_id: int
    can_share: bool
    weights: list[WeightFacts]

    @classmethod
    def of(cls, model: LanguageModel) -> ModelFacts:
        """Return the facts of a model."""
        weights = [WeightFacts(n, w.shape, w.dtype, w.requires_grad) for n, w in all_weights(model).items()]
        return cls(model.stop_token_ids, model.pad_token_id, model.can_share, weights)

    def give_to(self, outline: LanguageModel, name: str) -> None:
        """Give the dtypes of the weights, and what was found out of the model, to a model that has no weights yet.

        Args:
            outline: The model, whose weights are on ``meta``.
            name: Its name, for messages.

        Raises:
            ModelError: It has other weights, or keeps tensors that are none of its weights, which no process would
                send.
        """
        outline.can_share = self.can_share
        for weight, facts in zip(all_weights(outline).values(), self.weights, strict=False):
            weight.data = weight.data.to(facts.dtype)
        mine, theirs = ModelFacts.of(outline).weights, self.weights
        if mine != theirs:
            pairs = ((str(tuple(one)), str(tuple(other))) for one, other in zip(mine, theirs, strict=False))
            first = next((pair for pair in pairs if pair[0] != pair[1]), (f"{len(mine)} weights", str(len(theirs))))
            raise ModelError(
                f"Expected the architecture of {name!r} to follow from its config alone, so that its weights can be "
                f"sharded, but it makes {first[0]} where the loaded model has {first[1]}: train it without sharding "
                "(`trainer.strategy` auto or ddp)."
            )
        hidden = [
            f"{type(module).__name__}.{key}"
            for module in outline.modules()
            for key, value in vars(module).items()
            if isinstance(value, Tensor)
        ]
        if hidden:
            raise ModelError(
                f"Expected {name!r} to keep its tensors as parameters or buffers, so that it can be sharded, but there "
                f"is {hidden[0]}: train it without sharding (`trainer.strategy` auto or ddp)."
            )


def all_weights(model: LanguageModel) -> dict[str, Tensor]:
    """Return a model's parameters, then its buffers, those that no checkpoint holds too; each tensor once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
