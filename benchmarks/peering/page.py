"""The page of what steps cost against the peers."""

from __future__ import annotations

from peering.results import (
    COMPARED,
    OURS,
    PARTS,
    PEERS,
    Costs,
    costs_of,
    fastest_peer,
    missed,
    per_token,
    shares,
    tokens_of,
    unequal_lengths,
    works_of,
)
from peering.works import WORKS

HEADS = {"generation": "generation", "training": "training", "whole": "whole step", "peak_mib": "peak memory"}
REASONS = {
    "training": "Shared prompts save what prompts cost alone: completions, the teacher's own context, the output head "
    "and the optimizer are as much work as the peers'.",
    "whole": "A step contains the generation, of which shared prompts save little: every completion is sampled token "
    "by token.",
    "peak_mib": "Part of the memory is the same for all: weights, their gradient, AdamW's two moments and the teacher, "
    "2.6 GB of float32 for SmolLM2-135M, beside the interpreter and what it has imported.",
}
"""Part of a step's cost -> the likely reason where its target is missed."""
ON_GPU = {
    "training": "A model of 135M parameters takes longer to launch its kernels than to run them, and shared prompts "
    "launch as many: what they save are operations and memory.",
    "whole": "See the training part. Between the parts stand here the comparison of samples with the model, verdicts, "
    "and rollouts written to disk.",
    "peak_mib": "Weights, gradient, moments and teacher are the same for all.",
}
"""The same on a GPU."""
CLOSE = 1.03
"""Largest ratio of CaOPD's training per token to its backbone's that counts as the same."""


def page(record: dict) -> str:
    """Return the page of a record."""
    return "\n".join([*_head(record), *_costs(record), *_shares(record), *_confidence(record), *_rest(record)]) + "\n"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [row(*heads), row(*["---"] * len(heads)), *(row(*cells) for cells in rows), ""]


def work_line(record: dict, name: str) -> str:
    """Return what a work consists of."""
    work, lengths = WORKS[name], record["prompts"][name]
    student = sorted({prompt["student"] for prompt in lengths})
    return (
        f"{work.title}: {len(lengths)} prompts of {_span(student)} tokens, G = {work.num_rollouts}, "
        f"{work.new_tokens} new tokens, {work.batch_size} sequences a micro-batch"
    )


def _span(values: list[int]) -> str:
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _head(record: dict) -> list[str]:
    machine, settings = record["environment"], record["settings"]
    trl = next((run["versions"] for run in record["runs"] if run["trainer"] in PEERS), None)
    theirs = ", ".join(f"{name} {version}" for name, version in trl.items()) if trl else "not run"
    ours = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    on_gpu = settings["device"] == "cuda"
    seconds = (
        f"seconds on one GPU ({machine.get('gpu', 'of an unknown kind')})" if on_gpu else "CPU seconds on one thread"
    )
    return [
        "# What a training step costs, against other trainers",
        "",
        f"`python benchmarks/peers.py --data DIR`; {machine['cpus']} CPU cores, {machine['processes']} process at a "
        f"time, {machine['timestamp'][:10]}; {seconds}, {settings['rollouts']} for rollouts. Here: {ours}. Peers: "
        f"{theirs}.",
        "",
        "All do the same work: the same weights, prompts (to the token), number and length of completions, and the "
        "reverse KL over the whole vocabulary, with a teacher that is updated every step (TRL's DistillationTrainer: "
        "an external teacher of the same size, which sees the student's prompts; it has no groups, so prompts are "
        "repeated). float32 on a CPU, bf16-mixed on a GPU; no gradient checkpointing. *Generation* is sampling, "
        "*training* forward and backward passes, optimizer and teacher; the *whole step* also what lies between, here "
        "reading verdicts, comparing samples with the model, and writing the rollouts. Memory is the process's largest "
        "resident set, on a GPU the most that torch had allocated. "
        f"Medians over all steps but the first of every run; runs of a trainer: {settings['repeats']}, taking turns.",
        "",
        *(f"- `{name}`: {work_line(record, name)}" for name in works_of(record)),
        "",
    ]


def _costs(record: dict) -> list[str]:
    lines = ["## Seconds of a step", ""]
    for work in works_of(record):
        rows = []
        for trainer, name in {**PEERS, **OURS}.items():
            if costs := costs_of(record, work, trainer):
                seconds = [f"{costs[part]:.3g}" for part in PARTS[:-1]]
                rows.append([name, *seconds, f"{costs['peak_mib']:.0f}"])
        lines += [f"`{work}`", "", *table(["trainer", *list(HEADS.values())[:-1], "peak memory, MiB"], rows)]
    return lines


def _shares(record: dict) -> list[str]:
    lines = [
        "## As shares of the fastest peer's",
        "",
        "For every part, the smallest figure of any peer is 1. A target that is missed is in bold.",
        "",
    ]
    rows = []
    for work in works_of(record):
        peer, targets = fastest_peer(record, work), WORKS[work].targets
        for trainer, name in COMPARED.items():
            costs = costs_of(record, work, trainer)
            if costs and peer:
                rows.append([f"`{work}`", name, *_against(shares(costs, peer), targets)])
    if not rows:
        return [*lines, "No work has been done by both sides.", ""]
    heads = ["work", "trainer", "generation", *(f"{HEADS[part]} (target)" for part in PARTS[1:])]
    late = [part for column, part in enumerate(PARTS[1:], start=3) if any("**" in cells[column] for cells in rows)]
    reasons = ON_GPU if record["settings"]["device"] == "cuda" else REASONS
    return [*lines, *table(heads, rows), *(f"- {HEADS[part]}: {reasons[part]}" for part in late), ""]


def _against(share: Costs, targets: Costs) -> list[str]:
    late = missed(share, targets)
    cells = [f"{share['generation']:.2f}"]
    for part, target in targets.items():
        value = f"**{share[part]:.2f}**" if part in late else f"{share[part]:.2f}"
        cells.append(f"{value} ({target:g})")
    return cells


def _confidence(record: dict) -> list[str]:
    """Return what CaOPD costs more than SDFT."""
    rows = []
    for work in works_of(record):
        for ending, said in (("-stated", "all"), ("", "none, so they are appended")):
            found = [per_token(record, work, name + ending) for name in ("sdft", "caopd")]
            if None in found:
                continue
            tokens = [tokens_of(record, work, name + ending) for name in ("sdft", "caopd")]
            ratio, longer = found[1] / found[0], tokens[1] / tokens[0]
            per_step = f"{ratio * longer:.3f}"
            rows.append([f"`{work}`", said, f"{ratio:.3f}", f"{longer:.3f}", per_step])
    if not rows:
        return []
    heads = ["work", "completions that state a confidence", "per trained token", "trained tokens", "per step"]
    return [
        "## CaOPD on SDFT, against SDFT",
        "",
        f"Ratios of the training part. Up to {CLOSE:g} per token is what is aimed at where completions state a "
        "confidence: the note in the teacher's prompt is all that is added there. Where they state none, the segment "
        "with the confidence is appended, and its tokens are trained on, too.",
        "",
        *table(heads, rows),
    ]


def _rest(record: dict) -> list[str]:
    lines = []
    notes = [f"- `{work}` was left out: {reason}." for work, reason in record["skipped"].items()]
    notes += [f"- {name} has not been run." for name in record["missing"]]
    notes += [f"- {name}: completions differ in length." for name in unequal_lengths(record["runs"])]
    notes += [f"- {failure}" for failure in record["failures"]]
    if notes:
        lines += ["## Left out, missing, failed", "", *notes, ""]
    return lines
