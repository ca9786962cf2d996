"""The time of a round, from rates of a device: how many operations, how many bytes, whichever takes longer."""

from __future__ import annotations

from collections.abc import Iterable

from caopd.commands.plan.devices import Device
from caopd.commands.plan.micro_batches import Rows
from caopd.commands.plan.setup import Setup
from caopd.commands.plan.traffic import exchange_seconds, sync_seconds
from caopd.models.layout import PackingCost
from caopd.models.size import BYTES, ModelSize

_BANDWIDTH_SHARE = 0.7
_VLLM_ROWS = 256
_VLLM_LAYER_SHARE = 1 / 6


def seconds(setup: Setup, device: Device) -> dict[str, float]:
    """Return the seconds of each part of a round; what is not computed on the device is left out.

    Args:
        setup: The run.
        device: What every process has.
    """
    found = {
        "rollouts": rollout_seconds(setup, device),
        "teacher's forward passes": teacher_seconds(setup, device),
        "student's forward and backward passes": training_seconds(setup, device),
        "optimizer steps": optimizer_seconds(setup, device),
        "exchange between processes": exchange_seconds(setup, device),
        "weights to vLLM": sync_seconds(setup, device),
    }
    return {name: value for name, value in found.items() if value}


def forward_flops(size: ModelSize, cost: float) -> float:
    """Return the operations of a forward pass through the body.

    Args:
        size: The model's size.
        cost: What reading the rows costs, as :class:`caopd.models.layout.PackingCost` says.
    """
    return size.linear_flops_per_token * cost


def reading(rows: Iterable[Rows], cost: PackingCost) -> float:
    """Return what reading rows costs, in units of what a token costs outside attention.

    Args:
        rows: The rows of some micro-batches.
        cost: The price of a pair of tokens.
    """
    return sum(cost.of(each.num_rows, each.length, each.is_plain) for each in rows)


def rollout_seconds(setup: Setup, device: Device) -> float:
    """Return the seconds of sampling: prompts are read once, then each step reads all weights and the cache."""
    if not setup.num_rollouts or setup.engine.kind == "servers":
        return 0.0
    student, size = setup.student, setup.student.size
    is_vllm = setup.engine.kind == "vllm"
    # Every process samples with a vLLM of its own, unless the devices of several share one.
    copies = max(1, setup.processes // setup.engine.devices) if is_vllm else setup.processes
    share, prompts = (setup.engine.devices if is_vllm else 1), setup.num_prompts / copies
    total_rows = prompts * setup.num_rollouts
    rows = min(_VLLM_ROWS, total_rows) if is_vllm else min(setup.rows_at_once, total_rows)
    dtype = setup.engine.dtype if is_vllm else student.compute_dtype
    # A batch of transformers goes on until its longest completion ends; vLLM fills the place of one that has ended.
    steps = (setup.completions.mean if is_vllm else setup.completions.longest) * total_rows / rows
    context = setup.prompts.mean + setup.completions.mean / 2
    reads = size.num_parameters * BYTES[dtype] + rows * context * size.kv_bytes_per_token(dtype)
    flops = rows * (size.linear_flops_per_token + size.head_flops_per_token + context * size.attention_flops_per_pair)
    step = max(reads / share / (device.bandwidth * _BANDWIDTH_SHARE), flops / share / device.flops(dtype))
    prompt_cost = student.reading_cost.of(prompts, setup.prompts.mean, is_plain=True)
    prefill = forward_flops(size, prompt_cost) / share / device.flops(dtype)
    started = size.num_layers * device.layer_seconds * (_VLLM_LAYER_SHARE if is_vllm else 1)
    return prefill + steps * (step + started)


def teacher_seconds(setup: Setup, device: Device) -> float:
    """Return the seconds of the teacher's forward passes; in a trust region the student reads the same."""
    teacher, student = setup.teacher, setup.student
    if teacher is None:
        return 0.0
    cost = reading((batch.teacher for batch in setup.typical), teacher.reading_cost)
    heads = setup.num_trained_tokens * teacher.size.head_flops_per_token
    once = (forward_flops(teacher.size, cost) + heads) / setup.processes
    return (2 if teacher.with_student else 1) * once / device.flops(student.compute_dtype)


def training_seconds(setup: Setup, device: Device) -> float:
    """Return the seconds of the student's passes, in which a backward pass is two forward passes.

    It is one under adapters, which need no gradients of the weights below; gradient checkpointing adds a forward pass.
    """
    student = setup.student
    cost = reading((batch.student for batch in setup.typical), student.reading_cost)
    passes = 2 if student.adapted else 3
    body = (passes + student.checkpointing) * forward_flops(student.size, cost)
    head = passes * setup.num_trained_tokens * student.size.head_flops_per_token
    return (body + head) / setup.processes / device.flops(student.compute_dtype)


def optimizer_seconds(setup: Setup, device: Device) -> float:
    """Return the seconds of the steps: weights, gradients and state are read, weights and state written."""
    student, teacher = setup.student, setup.teacher
    moved = 3 if teacher is not None and teacher.moves else 0
    per_weight = (3 + moved) * BYTES[student.trained_dtype] + 2 * student.optimizer_bytes
    moved_bytes = student.trained * per_weight / setup.shards
    return setup.num_steps * moved_bytes / (device.bandwidth * _BANDWIDTH_SHARE)
