"""Variance of the sampled gradients of reverse KL; writes ``benchmarks/results/vopd.json`` and ``.md``.

    python benchmarks/vopd.py

For random pairs of student and teacher over a small vocabulary, every token is taken as the sample, so means and
variances over the student's samples are exact. The gradients are those that ``VOPDLoss`` gives the student's logits;
without a baseline it is the plain sampled estimator. A few seconds on one core.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from caopd.losses import LossInputs, ModelOutput, VOPDLoss

RESULTS = Path(__file__).parent / "results"
BASELINES = {"full vocabulary": None, "top 5": 5, "top 1": 1, "none": 0}
DISTANCES = (3.0, 1.0, 0.3, 0.1)
"""Standard deviation of the teacher's logits around the student's, which are standard normal."""


def random_pairs(num_pairs: int, vocabulary: int, distance: float) -> tuple[Tensor, Tensor]:
    """Return logits of students and of their teachers, (num_pairs, vocabulary) each."""
    generator = torch.Generator().manual_seed(0)
    student_PV, offset_PV = torch.randn(2, num_pairs, vocabulary, dtype=torch.float64, generator=generator)
    return student_PV, student_PV + distance * offset_PV


def sampled_gradients(student_PV: Tensor, teacher_PV: Tensor, baseline_top_k: int | None) -> Tensor:
    """Return the gradient for every token as the sample: (pair, sampled token, logit)."""
    num_pairs, vocabulary = student_PV.shape
    identity_VV = torch.eye(vocabulary, dtype=student_PV.dtype)  # as the head: hidden states are the logits
    hidden_TV = student_PV.repeat_interleave(vocabulary, dim=0).requires_grad_()
    teacher = ModelOutput(teacher_PV.repeat_interleave(vocabulary, dim=0), identity_VV)
    sampled_T = torch.arange(vocabulary).repeat(num_pairs)
    ones_T = torch.ones(len(sampled_T), dtype=student_PV.dtype)
    inputs = LossInputs(ones_T, sampled_T < 0, sampled_T, ones_T, ones_T, 1.0, torch.zeros_like(sampled_T))
    output = VOPDLoss(baseline_top_k, chunk_size=4096)(ModelOutput(hidden_TV, identity_VV), teacher, inputs)
    (gradient_TV,) = torch.autograd.grad(output.loss, hidden_TV)
    return gradient_TV.view(num_pairs, vocabulary, vocabulary)


def variance_and_error(student_PV: Tensor, teacher_PV: Tensor, baseline_top_k: int | None) -> tuple[Tensor, float]:
    """Return each pair's variance, summed over logits, and how far the largest mean is from reverse KL's gradient."""
    probability_PV1 = student_PV.softmax(-1).unsqueeze(-1)
    gradient_PVV = sampled_gradients(student_PV, teacher_PV, baseline_top_k)
    mean_P1V = (probability_PV1 * gradient_PVV).sum(1, keepdim=True)
    variance_P = (probability_PV1 * (gradient_PVV - mean_P1V).square()).sum((1, 2))
    logits_PV = student_PV.clone().requires_grad_()
    kl = kl_divergence(Categorical(logits=logits_PV), Categorical(logits=teacher_PV)).sum()
    (exact_PV,) = torch.autograd.grad(kl, logits_PV)
    return variance_P, (mean_P1V.squeeze(1) - exact_PV).abs().max().item()


def measure(num_pairs: int, vocabulary: int) -> list[dict]:
    """Return one row per distance and baseline."""
    rows = []
    for distance in DISTANCES:
        pairs = random_pairs(num_pairs, vocabulary, distance)
        plain_P, _ = variance_and_error(*pairs, BASELINES["none"])
        for name, top_k in BASELINES.items():
            variance_P, error = variance_and_error(*pairs, top_k)
            share_P = variance_P / plain_P
            rows.append(
                {
                    "distance": distance,
                    "baseline": name,
                    "median_share_of_plain_variance": share_P.median().item(),
                    "pairs_with_less_variance": (share_P < 1).double().mean().item(),
                    "largest_error_of_the_mean": error,
                }
            )
    return rows


def report(record: dict) -> str:
    lines = [
        "# Variance of vOPD's gradient",
        "",
        f"`python benchmarks/vopd.py`, caopd {record['caopd']}, {record['timestamp']}: {record['num_pairs']:,} random "
        f"pairs of student and teacher over {record['vocabulary']} tokens, every token enumerated as the sample. "
        "Distance: standard deviation of the teacher's logits around the student's. Share: of the plain sampled "
        "estimator's variance, median over pairs. Error: largest difference between the mean gradient and reverse "
        "KL's, over pairs and logits.",
        "",
        "| distance | baseline | share | pairs with less variance than the plain estimator | error |",
        "|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        lines.append(
            f"| {row['distance']} | {row['baseline']} | {row['median_share_of_plain_variance']:.3f} | "
            f"{row['pairs_with_less_variance']:.1%} | {row['largest_error_of_the_mean']:.1e} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pairs", type=int, default=2000)
    parser.add_argument("--vocabulary", type=int, default=19)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    record = {
        "benchmark": "vopd",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "caopd": version("caopd"),
        "num_pairs": options.num_pairs,
        "vocabulary": options.vocabulary,
        "rows": measure(options.num_pairs, options.vocabulary),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "vopd.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.results / "vopd.md").write_text(report(record))
    print(report(record))


if __name__ == "__main__":
    main()
