"""Attention over packed rows, where a prompt stands once, and over plain ones."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from caopd.models.layout import Layout
from caopd.models.packing import PackedSequences, packed
from gpu.memory import peak_mib, reset_peak, wait
from gpu.sizes import Size

ATTENTION = {"cuda": ("sdpa", "eager", "flex_attention"), "cpu": ("sdpa", "eager")}
"""Device -> kinds of attention; flex is compiled for GPUs, and on a CPU for minutes."""


def measure(size: Size, device: str) -> Iterator[dict]:
    """Yield milliseconds, memory and errors for every kind of attention and every way of laying out a group.

    What has to be compiled comes last, so that it takes the time of no other.
    """
    exact = {shape: hidden_states(size, device, shape, "plain", "sdpa", torch.float32) for shape in size.groups}
    for attention in ATTENTION[device]:
        for shape in size.groups:
            for way in ("plain", "packed"):
                named = dict(zip(("prompt", "completion", "G"), shape, strict=True))
                cell = {"attention": attention, **named, "rows": way}
                try:
                    yield cell | one(size, device, shape, way, attention, exact[shape])
                except Exception as error:  # of any kind: the others are measured all the same
                    yield cell | {"ms": None, "peak MiB": None, "error": f"failed: {error!r:.200}"}


def sequences_of(size: Size, shape: tuple[int, int, int], way: str) -> PackedSequences:
    """Return random token ids of a group as plain rows, or as one packed row."""
    prompt, completion, group = shape
    generator = torch.Generator().manual_seed(1)
    first = torch.randint(1, size.vocabulary, (prompt,), generator=generator).tolist()
    others = torch.randint(1, size.vocabulary, (group, completion), generator=generator).tolist()
    trees = [tuple(range(group))] if way == "packed" else [(number,) for number in range(group)]
    length = prompt + completion * (group if way == "packed" else 1)
    return packed(Layout(tuple((tree,) for tree in trees), length), [first] * group, others, 0)


def hidden_states(
    size: Size, device: str, shape: tuple[int, int, int], way: str, attention: str, dtype: torch.dtype
) -> Tensor:
    """Return the hidden states before the completions' tokens [T, H], without gradients."""
    rows = sequences_of(size, shape, way).to(device)
    model = size.model(device, attention)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=dtype is torch.bfloat16):
        return model(rows, lambda hidden_TH, head_VH: hidden_TH).float()


def one(
    size: Size, device: str, shape: tuple[int, int, int], way: str, attention: str, exact_TH: Tensor
) -> dict[str, float]:
    """Return what a way costs and how exact it is."""
    found_TH = hidden_states(size, device, shape, way, attention, torch.bfloat16)
    rows, model = sequences_of(size, shape, way).to(device), size.model(device, attention)
    reset_peak(device)
    seconds = []
    for _ in range(size.repeats + 1):
        model.zero_grad()
        wait(device)
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            model(rows, lambda hidden_TH, head_VH: hidden_TH).float().square().mean().backward()
        wait(device)
        seconds.append(time.perf_counter() - start)
    error = ((found_TH - exact_TH).norm() / exact_TH.norm()).item()
    return {"ms": 1000 * sorted(seconds[1:])[size.repeats // 2], "peak MiB": peak_mib(device), "error": error}
