"""Reads what ``caopd plan`` plans with: a fit's config, the configs of its models, and the lengths of its prompts."""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.strategies import ModelParallelStrategy
from rich.console import Console

from caopd.commands.outputs import tell
from caopd.commands.plan.devices import CPU, GPUS, device_of
from caopd.commands.plan.memory import GPU_LIBRARIES, LOADED_LATER, largest
from caopd.commands.plan.micro_batches import RoundShape, Rows
from caopd.commands.plan.options import parse
from caopd.commands.plan.page import show
from caopd.commands.plan.plan import Plan, make_plan
from caopd.commands.plan.setup import EngineSetup, Setup, StudentSetup, TeacherSetup
from caopd.errors import ConfigError
from caopd.losses import chunk_tokens
from caopd.models import EMA, External, ModelSize, ModelSource, TrustRegion
from caopd.models.packing import can_share
from caopd.rollouts import AutoEngine, RolloutEngine, TransformersEngine
from caopd.rollouts.auto import SMALL
from caopd.rollouts.vllm.engine import VLLMEngine
from caopd.rollouts.vllm.options import VLLMOptions
from caopd.rounds.batches import BatchPlan
from caopd.training import lightning_cli, subcommands
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule
from caopd.training.planned_lengths import measured_lengths, stated_lengths

DEFAULT_GPU = "h100-80g"
_GPUS = ("gpu", "cuda")
_PRECISIONS = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
_PROBED_WEIGHTS = 64


class PlannedRun(lightning_cli.CaopdCLI):
    """A fit whose config is read and whose parts are made, but for the trainer, which would need the device."""

    def _set_seed(self) -> None:
        """Draw no random numbers."""

    def before_instantiate_classes(self) -> None:
        """Look for no checkpoint."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:  # noqa: ANN401 (Lightning's own signature)
        """Keep the trainer's settings, and make none."""
        self.trainer_settings: Namespace = self._get(self.config_init, "trainer")

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


def run(arguments: Sequence[str]) -> int:
    """Print the plan of a fit and return the exit status: 0, whether or not it fits.

    Args:
        arguments: Command line after ``caopd plan``.
    """
    try:
        options, rest = parse(arguments)
    except SystemExit as stop:  # raised by the parser: 0 after --help, 2 after its own message
        return int(stop.code or 0)

    def plan(*parts: Any, **settings: Any) -> None:  # noqa: ANN401 (LightningCLI's own)
        made = plan_of(PlannedRun(*parts, **settings), options)
        if options.json:
            sys.stdout.write(json.dumps(made.as_json(), indent=2) + "\n")
        else:
            show(made, Console(width=110))
            tell([], [["caopd", "fit", *rest, "--dry_run"]])

    return subcommands.run(["fit", *rest], plan)


def plan_of(cli: PlannedRun, options: argparse.Namespace) -> Plan:
    """Return the plan of a config.

    Args:
        cli: The config with its parts.
        options: The command's own options.

    Raises:
        ConfigError: If the config cannot be planned.
        ModelError: If a model's config cannot be found.
    """
    trainer, model, data = cli.trainer_settings, cli.model, cli.datamodule
    name = options.device or (DEFAULT_GPU if trainer.accelerator in _GPUS else CPU)
    lengths = measured_lengths(model, data) if options.prompt_tokens is None else stated_lengths(data, options)
    if options.completion_tokens is not None:
        lengths = lengths.with_mean_completion(options.completion_tokens)
    libraries = _own_memory() if name == CPU else GPU_LIBRARIES  # before a probe, which takes memory of its own
    device = device_of(name, options.probe)
    student, processes = student_of(model, trainer), processes_of(trainer)
    held_out = max(event.sampling.max_new_tokens for event in data.events)
    teacher = _teacher(model, student) if model.loss.needs_teacher else None
    plan = BatchPlan(data.batch_size, trainer.accumulate_grad_batches, processes, data.tokens_per_batch)
    shape = _shape(model, data, plan, student, teacher)
    engine = _engine(data.engine if model.method.min_rollouts else None, student, device.is_cpu)
    is_validated = engine.kind == "transformers" and trainer.limit_val_batches != 0
    most = engine.batch_size if is_validated else 0
    setup = Setup(
        student=student,
        teacher=teacher,
        engine=engine,
        processes=processes,
        sharded=isinstance(trainer.strategy, ModelParallelStrategy) and processes > 1,
        num_prompts=data.round.num_prompts_per_round,
        num_rollouts=data.round.num_rollouts if model.method.min_rollouts else 0,
        num_samples=shape.num_samples,
        num_steps=shape.plan.num_steps(shape.num_samples),
        typical=shape.typical(lengths.rows),
        largest=shape.largest(lengths.rows),
        chunk_size=model.loss.chunk_size or chunk_tokens(student.size.vocab_size, "cpu" if device.is_cpu else "cuda"),
        prompts=lengths.student,
        teacher_prompts=lengths.teacher,
        completions=lengths.completions,
        held_out_rows=min(most, data.evaluation.batch_size, data.evaluation.num_examples or most),
        held_out_length=held_out,
        nodes=int(trainer.num_nodes),
    )
    return make_plan(setup, device, libraries, [*lengths.sources, *_sources(setup, name, options)])


def _shape(
    model: DistillationModule,
    data: RolloutDataModule,
    plan: BatchPlan,
    student: StudentSetup,
    teacher: TeacherSetup | None,
) -> RoundShape:
    """Return how the samples of a round are made and shared out, at the prices that both models will have."""
    num_prompts, is_sampled = data.round.num_prompts_per_round, model.method.min_rollouts > 0
    return RoundShape(
        num_prompts=num_prompts,
        num_trained=data.round.num_samples // num_prompts if is_sampled else 1,
        plan=plan,
        student=student.reading_cost if _shares(model.source) else None,
        teacher=teacher.reading_cost if teacher is not None and _shares(_teacher_source(model)) else None,
    )


def _attention(source: ModelSource) -> str:
    """Return the name of the attention that the model will have; transformers chooses sdpa."""
    return source.attn_implementation or "sdpa"


def _shares(source: ModelSource) -> bool:
    config = source.load_config().get_text_config()
    config._attn_implementation = _attention(source)
    return can_share(config)


def _teacher_source(model: DistillationModule) -> ModelSource:
    rule = model.teacher_rule
    return rule.source if isinstance(rule, External) else model.source


def student_of(model: DistillationModule, trainer: Namespace) -> StudentSetup:
    """Return how large the student is, and how much of it is trained.

    Args:
        model: The module, whose weights are not loaded.
        trainer: The trainer's settings.

    Raises:
        ConfigError: The model is a mixture of experts.
    """
    source = model.source
    size = _size(source)
    adapters = None if source.lora is None else size.adapter_parameters(source.lora.rank, source.lora.target_modules)
    trained_dtype = source.dtype if adapters is None else "float32"
    return StudentSetup(
        size=size,
        dtype=source.dtype,
        trained=size.num_parameters if adapters is None else adapters,
        trained_dtype=trained_dtype,
        adapted=adapters is not None,
        compute_dtype=_PRECISIONS.get(str(trainer.precision), source.dtype),
        attention=_attention(source),
        checkpointing=source.gradient_checkpointing,
        optimizer_bytes=_optimizer_bytes(model, getattr(torch, trained_dtype)),
    )


def _size(source: ModelSource) -> ModelSize:
    config = source.load_config()
    experts = [name for name in config.get_text_config().to_dict() if "expert" in name]
    if experts:
        raise ConfigError(
            f"Expected a model whose every token goes through all weights, but {source.name_or_path!r} is a mixture of "
            f"experts ({experts[0]}): `caopd plan` cannot plan it. Run a short `caopd fit` instead."
        )
    return ModelSize.of(config)


def _teacher(model: DistillationModule, student: StudentSetup) -> TeacherSetup:
    rule, source = model.teacher_rule, _teacher_source(model)
    is_copy = not isinstance(rule, External)
    return TeacherSetup(
        size=student.size if is_copy else _size(source),
        dtype=source.dtype,
        is_copy=is_copy,
        moves=isinstance(rule, EMA) and rule.rate > 0,
        with_student=isinstance(rule, TrustRegion),
        attention=_attention(source),
        adapters=student.trained if is_copy and student.adapted else 0,
    )


def _optimizer_bytes(model: DistillationModule, dtype: torch.dtype) -> float:
    """Return the bytes that the optimizer keeps per weight: what it keeps of a small matrix after one step."""
    weight = torch.nn.Parameter(torch.zeros(_PROBED_WEIGHTS, _PROBED_WEIGHTS, dtype=dtype))
    optimizer = model.optimizer_factory([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor) and value.ndim]
    return sum(value.nbytes for value in kept) / weight.numel()


def processes_of(trainer: Namespace) -> int:
    """Return the number of processes that the trainer's settings ask for; one where they do not say a number.

    Args:
        trainer: The trainer's settings.
    """
    devices = trainer.devices
    count = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 1
    return max(1, count) * int(trainer.num_nodes)


def _engine(engine: RolloutEngine | None, student: StudentSetup, on_cpu: bool) -> EngineSetup:
    """Return what samples; ``AutoEngine`` is taken to find vLLM installed on a GPU, and is asked on this machine."""
    if engine is None:
        return EngineSetup("none")
    if isinstance(engine, AutoEngine):
        has_vllm = not on_cpu or find_spec("vllm") is not None
        if student.size.num_parameters <= SMALL or not has_vllm:
            return EngineSetup("transformers", engine.batch_size)
        return _vllm(engine.vllm, student)
    if isinstance(engine, TransformersEngine):
        return EngineSetup("transformers", engine.batch_size)
    if isinstance(engine, VLLMEngine):
        return EngineSetup("servers") if engine.options is None else _vllm(engine.options, student)
    raise ConfigError(
        f"Expected an engine of caopd.rollouts, whose memory is known, but got {type(engine).__name__}: plan with "
        "`--data.engine=TransformersEngine`."
    )


def _vllm(options: VLLMOptions, student: StudentSetup) -> EngineSetup:
    return EngineSetup(
        "vllm",
        dtype=student.dtype if options.dtype == "auto" else options.dtype,
        memory_share=options.memory_share,
        cache_gib=options.kv_cache_gib,
        devices=options.tensor_parallel_size,
        sleeps=options.sleep,
    )


def _own_memory() -> float:
    """Return the peak memory of this process, which has loaded most of what a fit loads, and what it loads later.

    On Linux, ``getrusage`` begins with the peak of the process that started this one; what the kernel keeps does not.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE) if status.is_file() else None
    peak = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * 1024 + LOADED_LATER


def _sources(setup: Setup, name: str, options: argparse.Namespace) -> list[str]:
    rates = (
        "measured for seconds" if options.probe else "of docs/plan.md" if name in GPUS else "assumed (--probe measures)"
    )
    sampled = {
        "transformers": "transformers samples, with the student's own weights",
        "vllm": "vLLM samples" + ("" if name == CPU else ", which AutoEngine takes where it is installed"),
        "servers": "servers sample, whose memory and time are not counted",
        "none": "nothing is sampled in training",
    }
    how = "that share weights by FSDP2" if setup.sharded else "with a whole model each"
    kinds = "one process" if setup.processes == 1 else f"{setup.processes} processes {how}"
    return [f"rates of {name}: {rates}", f"{sampled[setup.engine.kind]}; {kinds}", _largest(setup)]


def _largest(setup: Setup) -> str:
    batch = largest(setup)
    read = [f"the student reads {_rows(batch.student)}"]
    if setup.teacher is not None:
        read.append(f"the teacher {_rows(batch.teacher)}")
    return f"largest micro-batch: {batch.num_sequences} sequences; {', '.join(read)}"


def _rows(rows: Rows) -> str:
    how = "one sequence each" if rows.is_plain else "prompts shared"
    return f"{rows.num_rows} x {rows.length} tokens ({how})"
