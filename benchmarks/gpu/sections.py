"""The parts, how much of the time each may take, and what the page says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from gpu.sizes import Size


@dataclass(frozen=True)
class Section:
    """A part of the script.

    Attributes:
        title: Its heading.
        text: What its table shows.
        share: Of the time of all parts, the most that it may take.
        module: Has the function ``measure`` and is imported for its own part alone.
    """

    title: str
    text: str
    share: float
    module: str

    def measure(self, size: Size, device: str) -> Iterator[dict]:
        """Yield rows of the same keys, each as soon as it is measured, or one that says why it was ``skipped``."""
        yield from import_module(self.module).measure(size, device)


SECTIONS = {
    "precision": Section(
        "bf16 against float32",
        "The same sequences, forward and backward, under bf16-mixed and in float32: how far log-probabilities (nats), "
        "the loss and its gradient differ. Weights are float32 in both.",
        0.1,
        "gpu.precision",
    ),
    "attention": Section(
        "Attention over packed and plain rows",
        "Forward and backward of a group under bf16-mixed: every sequence a row of its own (plain), or the prompt once "
        "with all completions after it (packed). Error: of the hidden states, against plain rows in float32, relative.",
        0.45,
        "gpu.attention",
    ),
    "loss": Section(
        "The loss",
        "Reverse KL from hidden states, forward and backward, bfloat16 (`benchmarks/loss.py`): chunks of several "
        "sizes, and Liger's fused kernel where liger_kernel is installed.",
        0.2,
        "gpu.loss",
    ),
    "steps": Section(
        "Steps and rollouts",
        "SDFT under bf16-mixed, as a user runs it. Shared: groups of G rollouts. Alone: as many sequences, each with a "
        "prompt of its own, so that nothing is shared. Seconds of a step, medians; memory as torch allocates it.",
        0.35,
        "gpu.steps",
    ),
    "transfer": Section(
        "vLLM: transfer of weights, and sleep",
        "Seconds until vLLM has changed weights; how far its log-probabilities are from the model's (nats, mean); free "
        "memory of the GPU before it sleeps and while it does.",
        0.4,
        "gpu.transfer",
    ),
    "rounds": Section(
        "Rounds of the main job",
        "`caopd fit` on a model of Qwen3-1.7B's shape with random weights, under bf16-mixed: CaOPD, 32 prompts with "
        "G = 8 and 256 new tokens, all 256 sequences trained on; on one device as it is, and sharded by FSDP2 over it. "
        "Seconds of the last round of three; memory is all that is in use on the device beyond this script's own.",
        0.5,
        "gpu.rounds",
    ),
}
