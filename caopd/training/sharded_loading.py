"""Loads student and teacher where they are sharded: process 0 reads the weights, and each process gets its shards."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from transformers import PreTrainedTokenizerBase

from caopd.distributed import on_first_process, together
from caopd.models import LanguageModel, Loader, ModelSource
from caopd.models.outlines import ModelFacts, all_weights
from caopd.models.sharding import copy_weights, fill, shard
from caopd.training.heap import give_back_at_once


class ShardedLoader(Loader):
    """Loads models that are sharded; its methods are collective operations.

    Process 0 loads and checks the whole model. All make its modules without weights, shard these, and are sent their
    shards, while process 0 lets go of what it has sent: a node holds one model beside the shards.

    Args:
        tokenizer: The student's tokenizer.
        compile_backend: The torch backend that compiles the decoder layers of all models; None compiles none.
        mesh: The one-dimensional mesh of data-parallel processes.
        device: Where this process's shards are.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        compile_backend: str | None,
        mesh: DeviceMesh,
        device: torch.device,
    ) -> None:
        super().__init__(tokenizer, compile_backend)
        give_back_at_once()
        self._mesh = mesh
        self._device = device
        self._outlines: dict[LanguageModel, LanguageModel] = {}
        """The models that were loaded, without weights and not sharded: one that is sharded cannot be copied."""

    def load(self, source: ModelSource, change: Callable[[LanguageModel], object] | None = None) -> LanguageModel:
        """Load a model in evaluation mode; arguments and errors as in the base class, which are raised in all."""
        whole: dict[str, Tensor] = {}

        def read() -> ModelFacts:
            model = source.load_model(self.tokenizer)
            facts = ModelFacts.of(model)
            if change is not None:
                change(model)
            whole.update(all_weights(model))
            return facts

        facts = on_first_process(read)
        outline = together(lambda: source.outline(facts))
        if change is not None:
            change(outline)
        model = self._sharded(copy.deepcopy(outline))
        fill(model, whole, self._mesh)
        self._outlines[model] = outline
        return model

    def copy(self, student: LanguageModel) -> LanguageModel:
        """Return a frozen copy of a student that this loader has loaded, made of its shards; in evaluation mode."""
        teacher = self._sharded(copy.deepcopy(self._outlines[student]).requires_grad_(False).eval())
        copy_weights(teacher, student)
        return teacher

    def _sharded(self, outline: LanguageModel) -> LanguageModel:
        """Shard a model without weights, and give its shards memory."""
        self._compiled(outline)
        shard(outline, self._mesh)
        outline.to_empty(device=self._device)
        return outline
