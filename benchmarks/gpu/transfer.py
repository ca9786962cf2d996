"""vLLM on the GPU: weights by handles and by files, and memory while it sleeps."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from caopd.models import LanguageModel, ModelSource
from caopd.rollouts import RolloutRequest, Sampling, VLLMEngine, VLLMOptions
from caopd.types import Rollout
from gpu.memory import MIB
from gpu.sizes import Size


def measure(size: Size, device: str) -> Iterator[dict]:
    """Yield times, differences and memory of both transfers, or why there are none."""
    if importlib.util.find_spec("vllm") is None:
        yield {"skipped": "vLLM is not installed here"}
        return
    if device != "cuda":
        yield {"skipped": "vLLM's handles and its sleep need a GPU"}
        return
    for transfer in ("files", "handles"):
        try:
            yield {"transfer": transfer, **one(size, transfer), "failed": ""}
        except Exception as error:  # of any kind: the other is measured all the same
            numbers = dict.fromkeys(("seconds", "difference", "free MiB", "free MiB asleep"))
            yield {"transfer": transfer, **numbers, "failed": f"{error!r:.200}"}


def one(size: Size, transfer: str) -> dict[str, float]:
    """Return what a transfer of changed weights takes, and whether the completions after it are the model's own."""
    with tempfile.TemporaryDirectory() as folder:
        size.write(Path(folder))
        source = ModelSource(folder)
        tokenizer = source.load_tokenizer()
        model = source.load_model(tokenizer).cuda()
        engine = VLLMEngine(options=VLLMOptions(dtype="float32", transfer=transfer, memory_share=0.3))
        engine.start(tokenizer)
        try:
            seconds = []
            for version in range(size.repeats + 1):
                with torch.no_grad():
                    next(model.parameters()).mul_(1.01)
                start = time.perf_counter()
                engine.sync(model, version)
                seconds.append(time.perf_counter() - start)
            requests = [RolloutRequest(tuple(range(10, 30)), seed) for seed in range(8)]
            groups = engine.generate(requests, 4, Sampling(max_new_tokens=16))
            pairs = zip(requests, groups, strict=True)
            differences = [_difference(model, request, rollout) for request, group in pairs for rollout in group]
            awake = torch.cuda.mem_get_info()[0] / MIB
            engine.rest()
            asleep = torch.cuda.mem_get_info()[0] / MIB
        finally:
            engine.close()
    return {
        "seconds": statistics.median(seconds[1:]),
        "difference": statistics.mean(differences),
        "free MiB": awake,
        "free MiB asleep": asleep,
    }


@torch.no_grad()
def _difference(model: LanguageModel, request: RolloutRequest, rollout: Rollout) -> float:
    ids = torch.tensor([[*request.prompt_ids, *rollout.token_ids]], device="cuda")
    scores = model.hf(ids).logits[0].float().log_softmax(-1)[len(request.prompt_ids) - 1 : -1]
    picked = scores.gather(1, torch.tensor(rollout.token_ids, device="cuda")[:, None])[:, 0]
    return (picked.cpu() - torch.tensor(rollout.logprobs)).abs().mean().item()
