"""What sharing prompts saves, and how well the cost model chooses; writes ``benchmarks/results/packing.json``, ``.md``.

A group of G completions of one prompt is read forward and backward as one sequence per completion, as one tree, and cut
into every number of trees between. Each way is measured in CPU seconds on one thread and in peak memory beyond the
model's, in a process of its own; beside it stands what the cost model (:class:`caopd.models.layout.PackingCost`) says,
in units of the plain way. A choice is judged by its *regret*: its time over that of the fastest way.

    python benchmarks/packing.py
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from caopd.models import LanguageModel
from caopd.models.layout import Layout, PackingCost, lay_out
from caopd.models.packing import PackedSequences, packed
from fits import ROOT, environment

SHAPES = ((58, 48, 4), (120, 48, 4), (300, 64, 8), (700, 48, 8), (150, 200, 8), (150, 400, 8), (100, 1000, 4))
"""Prompt and completion length in tokens, and G."""
SMOLLM2 = {
    **{"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
    **{"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
}
"""The architecture of SmolLM2-135M; its weights have no influence on time and memory."""


def model_of(num_layers: int, attention: str) -> LanguageModel:
    """Return the model, of fewer layers where that is asked for."""
    config = LlamaConfig(**{**SMOLLM2, "num_hidden_layers": num_layers}, max_position_embeddings=8192)
    config._attn_implementation = attention
    torch.manual_seed(0)
    return LanguageModel(LlamaForCausalLM(config), (0,), 0)


def ways(prompt: int, completion: int, group: int) -> dict[str, Layout]:
    """Return the layouts that are compared, by name."""
    found = {"plain": Layout(tuple(((number,),) for number in range(group)), prompt + completion)}
    for size in sorted({-(-group // parts) for parts in range(1, group)}, reverse=True):
        trees = [tuple(range(first, min(first + size, group))) for first in range(0, group, size)]
        found[f"{len(trees)} x {size}"] = Layout(tuple((tree,) for tree in trees), prompt + size * completion)
    return found


def rows_of(layout: Layout, shape: tuple[int, int, int]) -> PackedSequences:
    """Return random token ids in a layout."""
    prompt, completion, group = shape
    g = torch.Generator().manual_seed(1)
    first = torch.randint(9, 40_000, (prompt,), generator=g).tolist()
    others = torch.randint(9, 40_000, (group, completion), generator=g).tolist()
    return packed(layout, [first] * group, others, 0)


def measure(shape: tuple[int, int, int], way: str, num_layers: int, attention: str, repeats: int) -> dict:
    """Return median CPU seconds of forward and backward, and peak memory beyond what the model holds, MiB."""
    torch.set_num_threads(1)
    model = model_of(num_layers, attention).train()
    rows = rows_of(ways(*shape)[way], shape)
    held, seconds = _peak(), []
    for _ in range(repeats + 1):
        model.zero_grad()
        start = time.process_time()
        model(rows, lambda hidden_TH, head_VH: hidden_TH).square().sum().backward()
        seconds.append(time.process_time() - start)
    return {"seconds": statistics.median(seconds[1:]), "mebibytes": _peak() - held}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cells(shapes: list[tuple[int, int, int]], num_layers: int, attention: str, repeats: int) -> list[dict]:
    """Measure every way of every shape, the ways of a shape one after the other, and add what the cost model says."""
    cost = model_of(num_layers, attention).packing_cost
    assert cost is not None
    found = []
    torch.set_num_threads(1)  # before the processes branch off
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for shape in shapes:
            some = []
            for name, layout in ways(*shape).items():
                said = cost.of(len(layout.rows), layout.length, layout.is_plain)
                measured = pool.apply(measure, (shape, name, num_layers, attention, repeats))
                some.append({"prompt": shape[0], "completion": shape[1], "group": shape[2], "way": name, "said": said})
                some[-1] |= measured
                print(some[-1], file=sys.stderr, flush=True)
            found += _judged(some, shape, cost)
    return found


def _judged(some: list[dict], shape: tuple[int, int, int], cost: PackingCost) -> list[dict]:
    prompt, completion, group = shape
    chosen = lay_out([(1,) * prompt] * group, [completion] * group, cost)
    trees = [tree for row in chosen.rows for tree in row]
    name = "plain" if chosen.is_plain else f"{len(trees)} x {max(map(len, trees))}"
    plain, fastest = some[0], min(each["seconds"] for each in some)
    return [
        each
        | {
            "said": each["said"] / plain["said"],
            "measured": each["seconds"] / plain["seconds"],
            "memory": each["mebibytes"] / plain["mebibytes"],
            "regret": each["seconds"] / fastest - 1,
            "chosen": each["way"] == name,
        }
        for each in some
    ]


def page(record: dict) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Shared prompts",
        "",
        f"`{record['call']}`, {record['date']}, torch {record['environment']['versions']['torch']}:",
        f"{record['model']}, {record['attention']} attention, float32, one CPU thread. Ratios to one sequence per",
        "completion (*plain*). *Said* is by the cost model, which chooses the way in bold; *regret* is the time of a",
        "way over that of the fastest, minus 1.",
        "",
        "| prompt | completion | G | trees x completions | said | time | CPU s | memory | regret |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in record["cells"]:
        way = f"**{each['way']}**" if each["chosen"] else each["way"]
        lines.append(
            f"| {each['prompt']} | {each['completion']} | {each['group']} | {way} | {each['said']:.2f} | "
            f"{each['measured']:.2f} | {each['seconds']:.2f} | {each['memory']:.2f} | {each['regret']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_layers", type=int, default=SMOLLM2["num_hidden_layers"])
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", default=["x".join(map(str, shape)) for shape in SHAPES], metavar="PxCxG")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "packing.json")
    asked = parser.parse_args(arguments)
    shapes = [tuple(map(int, shape.split("x"))) for shape in asked.shapes]
    found = cells(shapes, asked.num_layers, asked.attention, asked.repeats)
    record = {
        "call": f"python benchmarks/packing.py --num_layers {asked.num_layers} --attention {asked.attention}",
        "model": f"SmolLM2-135M's architecture with {asked.num_layers} layers",
        "attention": asked.attention,
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(1),
        "cells": found,
    }
    asked.output.write_text(json.dumps(record, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(page(record))


if __name__ == "__main__":
    main()
