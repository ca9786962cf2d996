"""A plan: tokens, optimizer steps, memory and time of a round, and what will not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from caopd.commands.plan.devices import GIB, Device
from caopd.commands.plan.memory import Part, engine_cache_tokens, parts
from caopd.commands.plan.setup import Setup
from caopd.commands.plan.timing import seconds
from caopd.commands.plan.traffic import moved

TIGHT = 0.9
"""Share of a device's memory from which on a run may not fit, since the allocator cannot use every byte."""


@dataclass(frozen=True)
class Plan:
    """What a round will need.

    Attributes:
        setup: The run, in numbers.
        device: What every process has.
        parts: Memory of one device, part by part.
        seconds: Time of a round, part by part.
        warnings: What will not fit.
        assumptions: Where the numbers come from.
    """

    setup: Setup
    device: Device
    parts: Sequence[Part]
    seconds: Mapping[str, float]
    warnings: Sequence[str]
    assumptions: Sequence[str]

    @property
    def total(self) -> Part:
        """The sum of all parts."""
        columns = [sum(getattr(part, name) for part in self.parts) for name in ("rollouts", "training", "step")]
        return Part("total", *columns)

    @property
    def peak(self) -> float:
        """The largest memory of one device in bytes."""
        return max(self.total.rollouts, self.total.training, self.total.step)

    @property
    def counts(self) -> dict[str, float]:
        """Names of what a round has -> how many of it."""
        return counts(self.setup)

    @property
    def moved(self) -> dict[str, float]:
        """Where weights and gradients go -> the bytes of them that one process receives in a round."""
        return moved(self.setup)

    def as_json(self) -> dict[str, object]:
        """Return everything as plain numbers and texts."""
        return {
            "device": asdict(self.device),
            "round": self.counts,
            "memory_bytes": [asdict(part) for part in (*self.parts, self.total)],
            "peak_bytes": self.peak,
            "moved_bytes": self.moved,
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
            "warnings": list(self.warnings),
            "assumptions": list(self.assumptions),
            "setup": asdict(self.setup),
        }


def make_plan(setup: Setup, device: Device, libraries: float, assumptions: Sequence[str]) -> Plan:
    """Return the plan of a run.

    Args:
        setup: The run, in numbers.
        device: What every process has.
        libraries: Bytes of the interpreter and its libraries on a CPU, of CUDA's context on a GPU.
        assumptions: Where the numbers come from.
    """
    made = Plan(setup, device, parts(setup, device, libraries), seconds(setup, device), (), assumptions)
    return Plan(made.setup, device, made.parts, made.seconds, warnings(made), assumptions)


def counts(setup: Setup) -> dict[str, float]:
    """Return the numbers of a round, of all processes together: prompts, completions, tokens, steps."""
    read = {
        "student": [batch.student for batch in setup.typical],
        "teacher": [] if setup.teacher is None else [batch.teacher for batch in setup.typical],
    }
    tokens = {name: sum(rows.num_tokens for rows in every) for name, every in read.items()}
    positions = sum(rows.positions for every in read.values() for rows in every)
    return {
        "prompts": setup.num_prompts,
        "completions": setup.num_prompts * setup.num_rollouts,
        "sampled tokens": setup.num_prompts * setup.num_rollouts * setup.completions.mean,
        "training samples": setup.num_samples,
        "tokens the student reads": tokens["student"],
        "tokens the teacher reads": tokens["teacher"],
        "padding that both read": positions - sum(tokens.values()),
        "tokens in the loss": setup.num_trained_tokens,
        "micro-batches of a process": setup.num_micro_batches,
        "optimizer steps": setup.num_steps,
    }


def warnings(plan: Plan) -> list[str]:
    """Return what does not fit: the device in each phase, and vLLM's cache.

    Args:
        plan: The plan, whose own warnings are not looked at.
    """
    found = []
    processes = plan.setup.processes if plan.device.is_cpu else 1
    room = plan.device.memory / processes
    for phase, does, advice in _PHASES:
        size = getattr(plan.total, phase)
        if size > TIGHT * room:
            will = "will not fit" if size > room else "may not fit"
            found.append(f"{does} needs {size / GIB:.1f} GiB of {room / GIB:.1f} GiB and {will}: {advice}.")
    setup = plan.setup
    if setup.engine.kind == "vllm":
        tokens, needed = engine_cache_tokens(setup, plan.device), (setup.prompts + setup.completions).longest
        if tokens < needed:
            found.append(
                f"vLLM has room for the keys and values of {tokens:,.0f} tokens, and one prompt with its completion "
                f"has {needed:,}: raise `memory_share`, or `tensor_parallel_size`, of the engine's options."
            )
    return found


_PHASES = (
    (
        "rollouts",
        "Sampling",
        "lower `batch_size` of the engine, `data.evaluation.batch_size`, or vLLM's `memory_share`; or shard over more "
        "processes",
    ),
    (
        "training",
        "Training on a micro-batch",
        "set a lower `data.tokens_per_batch`, or `data.batch_size` (and raise `trainer.accumulate_grad_batches`), set "
        "`model.source.gradient_checkpointing` or `model.source.lora`, or shard over more processes",
    ),
    (
        "step",
        "The optimizer's step",
        "set `model.source.lora`, shard over more processes, or choose an optimizer that keeps less",
    ),
)
