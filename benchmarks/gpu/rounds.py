"""Whole rounds of the main job as a user runs it, on a model of Qwen3-1.7B's shape with random weights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Qwen3Config, Qwen3ForCausalLM

from caopd.models import ModelSource
from fits import QUICKSTART, ROOT
from gpu.memory import MIB
from gpu.sizes import Size
from peering.models import write_filled_up

SHAPE = {
    **{"vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096},
}
"""Of Qwen3-1.7B."""
TINY = {
    **SHAPE,
    **{"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
}
ROUNDS = 3
"""The last is told: the first starts vLLM."""
PHASES = ("sync", "rollout", "train")
SHARDED = (
    "--trainer.strategy=caopd.training.sharded.AtomicModelParallelStrategy",
    "--trainer.strategy.data_parallel_size=1",
    "--trainer.strategy.tensor_parallel_size=1",
    "--trainer.inference_mode=false",
)
WAYS = {"one device": (), "one device, FSDP2": SHARDED}
DEVICES = {"H100": "h100-80g", "H200": "h200-141g", "A100": "a100-80g", "B200": "b200-180g"}
"""Part of a GPU's name -> how ``caopd plan`` calls it."""


def measure(size: Size, device: str) -> Iterator[dict]:
    """Yield the seconds of a round's phases and the memory in use, planned and seen, of every way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        with torch.device(device):
            model = Qwen3ForCausalLM(Qwen3Config(**(SHAPE if device == "cuda" else TINY), tie_word_embeddings=True))
        write_filled_up(model.to(torch.bfloat16), ModelSource().load_tokenizer(), folder / "model")
        del model
        torch.cuda.empty_cache()
        for way, options in WAYS.items():
            row = {"way": way, "engine": "vLLM" if _vllm(device) else "transformers"}
            try:
                found = one(
                    folder / way.replace(" ", ""), [*options_of(size, device, folder / "model"), *options], device
                )
                yield {**row, **found, "failed": ""}
            except subprocess.CalledProcessError as error:  # the other is measured all the same
                numbers = dict.fromkeys((*(f"{phase} s" for phase in PHASES), "tokens/s", "most GiB", "planned GiB"))
                yield {**row, **numbers, "failed": f"{(error.stderr or '')[-400:]!r}"}


def options_of(size: Size, device: str, model: Path) -> list[str]:
    """Return the options of ``caopd fit`` that all ways share."""
    on_gpu = device == "cuda"
    prompts, new_tokens, batch = (32, 256, 32) if on_gpu else (size.num_prompts, 4, 2)
    return [
        *("--config", QUICKSTART, f"--model.source.name_or_path={model}", "--model.source.attn_implementation=sdpa"),
        *("--trainer.accelerator=gpu", "--trainer.precision=bf16-mixed") * on_gpu,
        *(f"--trainer.max_epochs={ROUNDS}", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"),
        *("--trainer.callbacks=null", "--trainer.enable_checkpointing=false"),
        *(f"--data.round.num_prompts_per_round={prompts}", f"--data.batch_size={batch}"),
        *("--data.task.num_train=64", f"--data.sampling.max_new_tokens={new_tokens}"),
        *("--data.round.num_rollouts=8", "--data.round.num_trained_rollouts=null"),
        *_engine(device),
    ]


def one(run: Path, options: list[str], device: str) -> dict[str, float | None]:
    """Run a fit, and return what its last round took, the most memory in use on the device, and what was planned.

    Raises:
        subprocess.CalledProcessError: The fit fails.
    """
    environ = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "caopd", "fit", *options, f"--trainer.default_root_dir={run}"]
    before, most = _in_use(device), 0.0
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        most = max(most, _in_use(device) - before)
        time.sleep(0.1)
    _, said = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=said)
    events = EventAccumulator(str(next(run.rglob("events*")).parent)).Reload()
    seconds = {f"{phase} s": events.Scalars(f"time/{phase}_seconds")[-1].value for phase in PHASES}
    rate = events.Scalars("time/rollout_tokens_per_second")[-1].value
    on_gpu = device == "cuda"
    return {
        **seconds,
        "tokens/s": rate,
        "most GiB": most / MIB / 1024 if on_gpu else None,
        "planned GiB": planned(options, device),
    }


def planned(options: list[str], device: str) -> float:
    """Return the memory of the device that ``caopd plan`` expects, in GiB."""
    known = [name for part, name in DEVICES.items() if device == "cuda" and part in torch.cuda.get_device_name()]
    command = [sys.executable, "-m", "caopd", "plan", *options, "--json", f"--device={(known or ['cpu'])[0]}"]
    found: Mapping = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return found["peak_bytes"] / MIB / 1024


def _vllm(device: str) -> bool:
    return device == "cuda" and importlib.util.find_spec("vllm") is not None


def _engine(device: str) -> list[str]:
    if _vllm(device):
        return ["--data.engine=caopd.rollouts.VLLMEngine", "--data.engine.options.dtype=bfloat16"]
    return ["--data.engine=caopd.rollouts.TransformersEngine"]


def _in_use(device: str) -> float:
    if device != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return float(total - free)
