"""The main job on paper: 1.7B, 8B and 32B parameters on 1, 8 and 64 GPUs, as ``caopd plan`` computes it.

Writes ``benchmarks/results/scale.json`` and ``.md``. Nothing of it was measured: ``docs/plan.md`` says which of the
formulas were compared with runs, and what is assumed.

    python benchmarks/scale.py
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from transformers import Qwen3Config

from caopd.cli import main as caopd

RESULTS = Path(__file__).parent / "results"
CONFIG = "configs/sdpo_caopd.yaml"
GIB, HOUR = 2**30, 3600
NODE = 8
"""GPUs of a node."""
SHARED = {"vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40_960}
MODELS = {
    "1.7B": {
        **{"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
        "tie_word_embeddings": True,
    },
    "8B": {
        **{"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32},
        "tie_word_embeddings": False,
    },
    "32B": {
        **{"hidden_size": 5120, "intermediate_size": 25_600, "num_hidden_layers": 64, "num_attention_heads": 64},
        "tie_word_embeddings": False,
    },
}
"""Sizes of Qwen3, as its public configs have them."""
ADAPTERS = ("--model.source.lora.rank=16", "--model.source.lora.alpha=32", "--model.source.dtype=bfloat16")
TWO_GPUS = ("--data.engine.init_args.vllm.tensor_parallel_size=2", "--data.engine.init_args.vllm.memory_share=0.55")


@dataclass(frozen=True)
class Case:
    """A model on some GPUs.

    Attributes:
        model: One of :data:`MODELS`.
        gpus: How many.
        how: What is trained, and how it is spread.
        options: Beside the model's, the GPUs' and the round's.
    """

    model: str
    gpus: int
    how: str
    options: tuple[str, ...] = ()


CASES = (
    Case("1.7B", 1, "all weights"),
    Case("1.7B", 8, "all weights, FSDP2"),
    Case("1.7B", 64, "all weights, FSDP2"),
    Case("8B", 1, "LoRA, bfloat16", ADAPTERS),
    Case("8B", 8, "all weights, FSDP2"),
    Case("8B", 64, "all weights, FSDP2"),
    Case("32B", 1, "LoRA, bfloat16", (*ADAPTERS, "--data.engine.init_args.vllm.memory_share=0.9")),
    Case("32B", 8, "LoRA, bfloat16, FSDP2, a vLLM for two GPUs", (*ADAPTERS, *TWO_GPUS)),
    Case("32B", 64, "all weights, FSDP2, a vLLM for two GPUs", TWO_GPUS),
)


def options_of(case: Case, model: str) -> list[str]:
    """Return the options that make the round the same everywhere: 256 sequences, one step.

    Args:
        case: What is planned.
        model: Name or folder of the model.
    """
    spread = [] if case.gpus > 1 else ["--trainer.strategy=auto"]
    if case.gpus > 1:
        spread.append(f"--trainer.strategy.init_args.data_parallel_size={case.gpus}")
    return [
        *(f"--config={CONFIG}", f"--model.source.name_or_path={model}", f"--trainer.devices={min(case.gpus, NODE)}"),
        f"--trainer.num_nodes={max(1, case.gpus // NODE)}",
        f"--trainer.accumulate_grad_batches={64 // case.gpus}",
        *spread,
        *case.options,
    ]


def plan(case: Case, asked: argparse.Namespace, directory: Path) -> dict:
    """Return what ``caopd plan`` says of a case."""
    lengths = ("prompt", "teacher_prompt", "completion")
    own = [f"--device={asked.device}", *(f"--{name}_tokens={getattr(asked, f'{name}_tokens')}" for name in lengths)]
    folder = directory / case.model
    Qwen3Config(**SHARED, **MODELS[case.model]).save_pretrained(folder)
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = caopd(["plan", "--json", *own, *options_of(case, str(folder))])
    assert status == 0, f"caopd plan failed: {case}"
    made = json.loads(printed.getvalue())
    return {name: made[name] for name in ("round", "peak_bytes", "moved_bytes", "seconds", "warnings")}


def row(case: Case, found: dict, asked: argparse.Namespace) -> str:
    """Return a line of the table."""
    seconds = found["seconds"]["total"]
    sampled = found["round"]["sampled tokens"]
    read = found["round"]["tokens the student reads"] + found["round"]["tokens the teacher reads"]
    training = sum(value for name, value in found["seconds"].items() if name not in ("total", "rollouts"))
    moved = sum(found["moved_bytes"].values())
    gpu_hours = 100 * seconds * case.gpus / HOUR
    numbers = (
        f"{found['peak_bytes'] / GIB:.0f}",
        f"{sampled / found['seconds']['rollouts']:,.0f}",
        f"{read / training:,.0f}",
        f"{moved / GIB:,.0f}",
        f"{seconds:,.0f}",
        f"{100 * seconds / HOUR:,.1f}",
        f"{gpu_hours:,.1f}",
        f"{gpu_hours * asked.price:,.0f}",
    )
    fits = "; ".join(each.partition(":")[0] for each in found["warnings"]) or "fits"
    return f"| {case.model} | {case.gpus} | {case.how} | {' | '.join(numbers)} | {fits} |"


def page(found: list[tuple[Case, dict]], asked: argparse.Namespace) -> str:
    """Return the table as a page."""
    heads = ("model", "GPUs", "trained", "GiB a GPU", "sampled tokens/s", "read tokens/s", "GiB moved a GPU and round")
    more = ("s a round", "h for 100 rounds", "GPU hours", f"at {asked.price:g} an hour", "does it fit?")
    lines = [row(case, each, asked) for case, each in found]
    commands = [f"caopd fit {' '.join(options_of(case, f'Qwen/Qwen3-{case.model}'))}" for case, _ in found]
    lengths = (
        f"{asked.prompt_tokens} tokens in the student's prompts, {asked.teacher_prompt_tokens} in the teacher's, "
        f"{asked.completion_tokens} in the mean completion of at most 2,048"
    )
    return f"""# The main job on paper

`python benchmarks/scale.py`: `caopd plan` for `{CONFIG}` with models of Qwen3's sizes on {asked.device}; rounds of
32 prompts with G = 8, one step of 256 sequences; {lengths}.

**Nothing here was measured.** Of FSDP2 runs two on CPUs were compared with their plans, of vLLM and several GPUs none;
`docs/plan.md` says which formulas were compared with runs, and what is assumed. *Read tokens* are those that student
and teacher read in training, per second of training, optimizer, exchange and sync. *Moved* are weights and gradients.
Exchange is taken not to overlap with computing, and float32 shards are gathered as they are. The price of a GPU hour is
an assumption (`--price`).

| {" | ".join((*heads, *more))} |
|{"---|" * (len(heads) + len(more))}
{chr(10).join(lines)}

Rounds of 256 sequences are too few for 64 GPUs: eight do them for a sixth of the cost. Raise
`data.round.num_prompts_per_round` with the number of GPUs.

## The runs, row by row

    {(chr(10) + "    ").join(commands)}
"""


def main() -> None:
    """Plan all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="h100-80g")
    parser.add_argument("--prompt_tokens", type=int, default=400)
    parser.add_argument("--teacher_prompt_tokens", type=int, default=900)
    parser.add_argument("--completion_tokens", type=int, default=600)
    parser.add_argument("--price", type=float, default=2.5, help="of a GPU hour, in whatever currency")
    parser.add_argument("--output", type=Path, default=RESULTS / "scale.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = [(case, plan(case, asked, Path(directory))) for case in CASES]
    record = [{"model": case.model, "gpus": case.gpus, "how": case.how, **each} for case, each in found]
    asked.output.write_text(json.dumps({"device": asked.device, "cases": record}, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(page(found, asked))
    print(page(found, asked))


if __name__ == "__main__":
    main()
