"""The memory of one device, part by part, in the three phases of a round."""

from __future__ import annotations

from dataclasses import dataclass

from caopd.commands.plan.devices import GIB, Device
from caopd.commands.plan.micro_batches import MicroBatch, Rows
from caopd.commands.plan.setup import Setup
from caopd.models.size import BYTES, ModelSize

GPU_LIBRARIES = 1.0 * GIB
"""What CUDA's context, its libraries' workspaces and the allocator's rounding are assumed to take."""
LOADED_LATER = 35 * 2**20
"""What a fit loads on a CPU beside what planning loads: the model's classes, the logger, kernels. A fit of the embedded
model, which has 0.2 million weights, takes as much beyond its tensors."""
KEPT = 0.1
"""Share of the activations that glibc's allocator is assumed to keep of what was freed, on a CPU."""
EAGER, MASK_ATTENTION = "eager", "sdpa"
"""Attention that keeps the weights of every head, and attention that keeps a mask where it is given one."""
_CPU_BLOCK = 2**21
_SAMPLING_BYTES = 24
_GATHERED_LAYERS = 2
_VLLM_CPU_CACHE_GIB = 2.0
_VLLM_CPU_COPIES = 2
"""Of the weights, as measured with SmolLM2-135M."""
_VLLM_CPU_LIBRARIES = 0.75 * GIB
"""Interpreter and libraries of vLLM's own process, measured with the embedded model, whose weights are small."""


@dataclass(frozen=True)
class Part:
    """A part of the memory, in bytes.

    Attributes:
        name: What it is.
        rollouts: While completions are sampled.
        training: At the end of a micro-batch's forward pass, the peak of forward and backward pass.
        step: In the optimizer's step.
    """

    name: str
    rollouts: float = 0.0
    training: float = 0.0
    step: float = 0.0


def parts(setup: Setup, device: Device, libraries: float) -> list[Part]:
    """Return the memory of one device, part by part; parts that are empty are left out.

    Args:
        setup: The run.
        device: The device, whose memory vLLM takes a share of.
        libraries: Bytes of the interpreter and its libraries on a CPU, of CUDA's context on a GPU.
    """
    lasting = {
        "interpreter and libraries" if device.is_cpu else "CUDA context (assumed)": libraries,
        "weights": held_weights(setup) / setup.shards,
        "gradients": setup.student.trained * BYTES[setup.student.trained_dtype] / setup.shards,
        "optimizer state": setup.student.trained * setup.student.optimizer_bytes / setup.shards,
        "teacher": teacher_weights(setup) / setup.shards,
    }
    held = [Part(name, size, size, size) for name, size in lasting.items()]
    engine_room = engine_memory(setup, device)
    engine_stays = 0.0 if setup.engine.sleeps and not device.is_cpu else engine_room
    passing = [
        Part("weights in 16 bits (autocast)", rollout_copies(setup), training_copies(setup)),
        Part("weights gathered of shards", gathered(setup), gathered(setup)),
        Part("activations", 0.0, activations(setup)),
        Part("head's gradient, logits of a chunk", 0.0, logits(setup, device)),
        Part("optimizer's temporaries", step=step_temporaries(setup, device)),
        Part("key-value cache (transformers)", generation_cache(setup)),
        Part("sampling over the vocabulary", sampling(setup)),
        Part("freed, kept by the C library (assumed)", 0.0, KEPT * activations(setup) if device.is_cpu else 0.0),
        Part("vLLM", engine_room, engine_stays, engine_stays),
    ]
    return [part for part in (*held, *passing) if part.rollouts or part.training or part.step]


def held_weights(setup: Setup) -> float:
    """Return the bytes of the student's weights."""
    student = setup.student
    return student.frozen * BYTES[student.dtype] + student.trained * BYTES[student.trained_dtype]


def teacher_weights(setup: Setup) -> float:
    """Return the bytes of the teacher's weights that are not the student's own; sharding splits what was shared."""
    student, teacher = setup.student, setup.teacher
    if teacher is None:
        return 0.0
    if not teacher.is_copy:
        return teacher.size.num_parameters * BYTES[teacher.dtype]
    shared = 0 if setup.sharded else student.frozen * BYTES[student.dtype]
    return held_weights(setup) - shared


def largest(setup: Setup) -> MicroBatch:
    """Return the micro-batch whose activations take the most."""
    return max(setup.largest, key=lambda batch: activations_of(setup, batch))


def activations(setup: Setup) -> float:
    """Return the bytes of the largest micro-batch's activations."""
    return activations_of(setup, largest(setup))


def activations_of(setup: Setup, batch: MicroBatch) -> float:
    """Return the bytes of a micro-batch's activations: of the student's or, before they exist, of the teacher's layer.

    Args:
        setup: The run.
        batch: The micro-batch.
    """
    if setup.teacher is None:
        return student_activations(setup, batch.student)
    return max(student_activations(setup, batch.student), teacher_activations(setup, batch.teacher))


def student_activations(setup: Setup, rows: Rows) -> float:
    """Return the bytes that a forward pass saves, and of the gradients in the layer that the backward pass is in.

    Args:
        setup: The run.
        rows: What the student reads.
    """
    student = setup.student
    size, dtype, checkpointing = student.size, student.compute_dtype, student.checkpointing
    repeated = repeats(student.attention, rows)
    saved = size.activation_bytes_per_token(dtype, student.mixed, checkpointing, repeated)
    per_token = saved + size.layer_activation_bytes(dtype, student.mixed, repeated)
    return rows.positions * per_token + pair_bytes(setup, size, student.attention, rows, checkpointing)


def teacher_activations(setup: Setup, rows: Rows) -> float:
    """Return the bytes of one layer's activations, as many as exist at once where no backward pass follows.

    Args:
        setup: The run.
        rows: What the teacher reads.
    """
    teacher, dtype = setup.teacher, setup.student.compute_dtype
    assert teacher is not None
    mixed = dtype != teacher.dtype
    per_token = teacher.size.layer_activation_bytes(dtype, mixed, repeats(teacher.attention, rows))
    return rows.positions * per_token + pair_bytes(setup, teacher.size, teacher.attention, rows, True)


def repeats(attention: str, rows: Rows) -> bool:
    """Return whether attention repeats keys and values for every query head: if it is eager, or given a mask.

    Args:
        attention: Its name in transformers.
        rows: What is read.
    """
    return attention == EAGER or (attention == MASK_ATTENTION and not rows.is_plain)


def pair_bytes(setup: Setup, size: ModelSize, attention: str, rows: Rows, one_layer: bool) -> float:
    """Return the bytes of what is saved for pairs of positions: masks, or the weights of eager attention.

    Args:
        setup: The run.
        size: The model's size.
        attention: Name of its attention in transformers.
        rows: What is read.
        one_layer: Whether they exist for one layer at a time.
    """
    if not repeats(attention, rows):
        return 0.0
    return rows.pairs * size.attention_bytes_per_pair(setup.student.compute_dtype, attention == EAGER, one_layer)


def training_copies(setup: Setup) -> float:
    """Return the bytes of the copies of float32 weights that autocast multiplies with, until the backward pass.

    Lightning's autocast keeps none, but autograd keeps those it needs, which with gradient checkpointing are one
    layer's.
    """
    student = setup.student
    if not student.mixed:
        return 0.0
    layers = 1 if student.checkpointing else student.size.num_layers
    return layers * student.size.linear_weights_per_layer * BYTES[student.compute_dtype]


def rollout_copies(setup: Setup) -> float:
    """Return the bytes of the largest copy that autocast multiplies with while transformers samples, the head's."""
    student = setup.student
    if not student.mixed or setup.engine.kind != "transformers":
        return 0.0
    return student.size.embedding_parameters * BYTES[student.compute_dtype]


def gathered(setup: Setup) -> float:
    """Return the bytes of the whole weights that a sharded model holds at a time: embedding, head and some layers."""
    if not setup.sharded:
        return 0.0
    size, number = setup.student.size, BYTES[setup.student.dtype]
    root = size.embedding_parameters + size.head_parameters + size.hidden_size
    return (root + _GATHERED_LAYERS * size.layer_parameters) * number


def logits(setup: Setup, device: Device) -> float:
    """Return the bytes of the loss: its head's gradient, hidden states, and the logits of one chunk of tokens.

    The softmax takes five float32 tensors; on a CPU these are of a block of the chunk.
    """
    student, teacher = setup.student, setup.teacher
    vocabulary, number = student.size.vocab_size, BYTES[student.compute_dtype]
    tokens = largest(setup).num_completion_tokens
    chunk = min(setup.chunk_size, tokens) * vocabulary
    models = 1 if teacher is None else 2
    block = min(chunk, _CPU_BLOCK) if device.is_cpu else chunk
    head_gradient = 0 if student.adapted else 4 * student.size.embedding_parameters
    hidden = 4 * 2 * tokens * student.size.hidden_size
    return head_gradient + hidden + models * chunk * number + 5 * 4 * block + _heads(setup)


def _heads(setup: Setup) -> float:
    """Return the bytes of further heads: autocast's copies, the teacher's gathered one, and two laid side by side."""
    student, teacher = setup.student, setup.teacher
    weights, total = student.size.embedding_parameters, 0.0
    if student.mixed:
        total += weights * BYTES[student.compute_dtype]
    if teacher is not None:
        its = teacher.size.embedding_parameters
        if teacher.dtype == "float32" and student.compute_dtype != "float32":
            total += (2 if teacher.with_student else 1) * its * BYTES[student.compute_dtype]
        if setup.sharded:
            total += its * BYTES[teacher.dtype]
        if teacher.with_student:
            total += 2 * its * BYTES[teacher.dtype]
        total += 4 * largest(setup).num_completion_tokens * teacher.size.hidden_size
    return total


def step_temporaries(setup: Setup, device: Device) -> float:
    """Return the bytes of the optimizer's temporaries: on a GPU one number per weight, on a CPU two of one matrix."""
    student = setup.student
    number = BYTES[student.trained_dtype]
    if device.is_cpu:
        return 2 * number * min(student.trained, student.size.embedding_parameters)
    return student.trained * number / setup.shards


def generation_cache(setup: Setup) -> float:
    """Return the bytes of the key-value cache of transformers' ``generate``, and of one layer's as it grows."""
    if setup.engine.kind != "transformers":
        return 0.0
    size = setup.student.size
    per_token = size.kv_bytes_per_token(setup.student.compute_dtype) * (1 + 1 / size.num_layers)
    prompt = setup.prompts.longest
    trained = setup.rows_at_once * (prompt + setup.completions.longest)
    return max(trained, setup.held_out_rows * (prompt + setup.held_out_length)) * per_token


def sampling(setup: Setup) -> float:
    """Return the bytes that choosing the next tokens takes: logits in float32 twice, probabilities, and their sums."""
    if setup.engine.kind != "transformers":
        return 0.0
    return max(setup.rows_at_once, setup.held_out_rows) * setup.student.size.vocab_size * _SAMPLING_BYTES


def engine_memory(setup: Setup, device: Device) -> float:
    """Return the bytes that vLLM takes on the device."""
    engine = setup.engine
    if engine.kind != "vllm":
        return 0.0
    if not device.is_cpu:
        return engine.memory_share * device.memory
    return _VLLM_CPU_COPIES * engine_weights(setup) + _cpu_cache(setup) + _VLLM_CPU_LIBRARIES


def engine_weights(setup: Setup) -> float:
    """Return the bytes of vLLM's copy of the weights on one device."""
    return setup.student.size.num_parameters * BYTES[setup.engine.dtype] / setup.engine.devices


def engine_cache_tokens(setup: Setup, device: Device) -> float:
    """Return how many tokens' keys and values vLLM has room for; a GPU's share also holds its weights."""
    size, engine = setup.student.size, setup.engine
    if device.is_cpu:
        room = _cpu_cache(setup)
    elif engine.cache_gib is not None:
        room = engine.cache_gib * GIB
    else:
        room = engine_memory(setup, device) - engine_weights(setup)
    return max(0.0, room) * engine.devices / size.kv_bytes_per_token(engine.dtype)


def _cpu_cache(setup: Setup) -> float:
    return (setup.engine.cache_gib or _VLLM_CPU_CACHE_GIB) * GIB
