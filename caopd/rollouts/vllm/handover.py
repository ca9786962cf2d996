"""Hands a policy's weights to the vLLMs of a run: gathered once, and written once on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor

from caopd.distributed import gather_in_order
from caopd.models.language_model import LanguageModel
from caopd.models.weights import is_adapter
from caopd.rollouts.vllm.base import Backend, Delivery, Way
from caopd.rollouts.vllm.files import Written, written
from caopd.rollouts.vllm.placement import Placement

Weights = Iterable[tuple[str, Tensor]]


@contextmanager
def handed_over(
    backend: Backend,
    way: Way | None,
    policy: LanguageModel,
    weights: Weights,
    placement: Placement,
    everywhere: Callable[[Callable[[], Written | None]], Written | None],
) -> Iterator[Delivery]:
    """Give this process's vLLM the weights, as a delivery that holds until the end of the ``with`` block.

    Both ends of the block are collective operations. Where weights travel in files, one process of each machine writes
    them, and removes them when every process has come to the end.

    Args:
        backend: The vLLM of this process.
        way: How it takes weights; None where it takes none now.
        policy: The model whose weights they are.
        weights: Names and tensors; making one is a collective operation, where weights are sharded.
        placement: Where the run's vLLMs are.
        everywhere: Does work in every process, and goes on where it has been done in all.

    Raises:
        RolloutError: There is no room for the files.
        EngineDiedError: A vLLM has ended.
    """
    adapter: dict[str, Tensor] = {}
    rest = _without_adapter(weights, adapter)
    writes = placement.is_first_here(gather_in_order([way == "files"]))
    with ExitStack() as folder:

        def hand_over() -> Written | None:
            try:
                if way in ("handles", "network"):
                    backend.receive(rest)
                return folder.enter_context(written(rest, backend.folder(policy))) if writes else None
            finally:
                for _ in rest:  # gathering shards needs every process, to the end
                    pass

        files = filter(None, placement.here(gather_in_order([everywhere(hand_over)])))
        yield Delivery(next(files) if way == "files" else None, adapter)


def _without_adapter(weights: Weights, adapter: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights, but put those of a LoRA adapter into ``adapter`` instead."""
    for name, weight in weights:
        if is_adapter(name):
            adapter[name] = weight.cpu()
        else:
            yield name, weight
