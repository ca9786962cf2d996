"""What importance sampling corrects, by enumeration; writes ``benchmarks/results/importance.json`` and ``.md``.

    python benchmarks/importance.py

For random students, engines and teachers that give every prefix of a small tree its own next-token distribution, every
completion is enumerated, so the mean and the variance of the gradient over the engine's samples are exact. They are
compared with the gradient over the student's own. Ratios are those of ``ImportanceSampling``. About a minute on one
core.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from caopd.losses import ImportanceSampling, ReverseKL

RESULTS = Path(__file__).parent / "results"
DISTANCES = (1.0, 0.3, 0.1, 0.03)
"""Standard deviation of the engine's logits around the student's, which are standard normal."""
VOCABULARY = 3
END = 0
"""The token that ends a completion."""
FORMS: dict[str, ImportanceSampling | None] = {
    "none": None,
    **{level: ImportanceSampling(level, math.inf) for level in ("token", "prefix", "sequence")},
    **{f"{level}, cap 2": ImportanceSampling(level, 2.0) for level in ("token", "prefix", "sequence")},
}
SIGNALS = {"divergence": False, "vOPD": True, "policy gradient": True}
"""What is at every token -> whether it depends on that token itself."""
REDUCTIONS = ("sum over tokens", "mean over tokens")


class Tree:
    """All completions of at most ``horizon`` tokens, Y of them, and the P prefixes that they pass through.

    Attributes:
        token_YT: Ids of the tokens, 0 beyond the end.
        prefix_YT: Number of the prefix that precedes each token.
        mask_YT: True at tokens.
    """

    def __init__(self, horizon: int) -> None:
        completions: list[tuple[int, ...]] = []
        self.prefixes: dict[tuple[int, ...], int] = {}
        open_ones: list[tuple[int, ...]] = [()]
        while open_ones:
            prefix = open_ones.pop()
            self.prefixes[prefix] = len(self.prefixes)
            for token in range(VOCABULARY):
                longer = (*prefix, token)
                is_whole = token == END or len(longer) == horizon
                (completions if is_whole else open_ones).append(longer)
        padded = [completion + (0,) * (horizon - len(completion)) for completion in completions]
        self.token_YT = torch.tensor(padded)
        length_Y1 = torch.tensor([[len(completion)] for completion in completions])
        self.mask_YT = torch.arange(horizon) < length_Y1
        before = [[completion[:t] for t in range(horizon)] for completion in completions]
        self.prefix_YT = torch.tensor([[self.prefixes.get(prefix, 0) for prefix in row] for row in before])

    def logprobs(self, logits_PV: Tensor) -> Tensor:
        """Return the log-probability of every token [Y, T], 0 beyond the end."""
        return logits_PV.log_softmax(-1)[self.prefix_YT, self.token_YT].masked_fill(~self.mask_YT, 0.0)


@dataclass(frozen=True)
class Case:
    """One student, its engine and its teacher: logits of every prefix (P, V), and the reward of every completion."""

    student_PV: Tensor
    engine_PV: Tensor
    teacher_PV: Tensor
    reward_Y: Tensor


def random_case(tree: Tree, distance: float, seed: int) -> Case:
    """Return a student with standard normal logits, and an engine and a teacher around it."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(tree.prefixes), VOCABULARY)
    student_PV, engine_PV, teacher_PV = torch.randn(3, *shape, dtype=torch.float64, generator=generator)
    reward_Y = torch.randint(2, (len(tree.token_YT),), generator=generator).double()
    return Case(student_PV, student_PV + distance * engine_PV, student_PV + teacher_PV, reward_Y)


def token_gradients(tree: Tree, case: Case, signal: str) -> Tensor:
    """Return what every token of every completion gives the student's logits at its prefix [Y, T, V]."""
    student_PV, teacher_PV = case.student_PV.log_softmax(-1), case.teacher_PV.log_softmax(-1)
    divergence_P, gradient_PV = ReverseKL().values_and_gradients(student_PV, teacher_PV)
    if signal == "divergence":
        return gradient_PV[tree.prefix_YT]
    score_YTV = student_PV.exp()[tree.prefix_YT] - torch.nn.functional.one_hot(tree.token_YT, VOCABULARY)
    if signal == "vOPD":
        log_ratio_YT = tree.logprobs(case.teacher_PV) - tree.logprobs(case.student_PV)
        return score_YTV * (log_ratio_YT + divergence_P[tree.prefix_YT])[..., None]
    own_Y = tree.logprobs(case.student_PV).sum(1).exp()
    return score_YTV * (case.reward_Y - own_Y @ case.reward_Y)[:, None, None]


def ratios(tree: Tree, case: Case, form: ImportanceSampling | None, with_own: bool) -> Tensor:
    """Return every token's ratio [Y, T]; 1 without importance sampling."""
    ratio_YT = torch.ones(tree.mask_YT.shape, dtype=torch.float64)
    if form is not None:
        flat = [tree.logprobs(logits)[tree.mask_YT] for logits in (case.student_PV, case.engine_PV)]
        sequence_T = tree.mask_YT.nonzero()[:, 0]
        ratio_YT[tree.mask_YT] = form.ratios(*flat, sequence_T, "token_mean", with_own).double()
    return ratio_YT


def moments(tree: Tree, sampler_PV: Tensor, weight_YT: Tensor, gradient_YTV: Tensor) -> tuple[Tensor, float]:
    """Return the mean gradient over one completion's samples [P, V], and the trace of its covariance."""
    probability_Y = tree.logprobs(sampler_PV).sum(1).exp()
    each_YTV = gradient_YTV * (weight_YT * tree.mask_YT)[..., None]
    weighed_YTV = each_YTV * probability_Y[:, None, None]
    mean_PV = torch.zeros(len(tree.prefixes), VOCABULARY, dtype=torch.float64)
    mean_PV.index_add_(0, tree.prefix_YT.flatten(), weighed_YTV.flatten(0, 1))
    # A completion passes every prefix once, so the squared norm of its gradient is the sum of those of its tokens.
    second = float((weighed_YTV * each_YTV).sum())
    return mean_PV, second - float(mean_PV.square().sum())


def bias_and_deviation(tree: Tree, case: Case, signal: str, reduction: str, form: str) -> tuple[float, float]:
    """Return bias and standard deviation of one completion's gradient, as shares of the wanted gradient's length."""
    length_Y1 = tree.mask_YT.sum(1, keepdim=True).double()
    weight_YT = (1 / length_Y1 if reduction == "mean over tokens" else torch.ones_like(length_Y1)).expand_as(
        tree.mask_YT
    )
    gradient_YTV = token_gradients(tree, case, signal)
    wanted_PV, _ = moments(tree, case.student_PV, weight_YT, gradient_YTV)
    ratio_YT = ratios(tree, case, FORMS[form], SIGNALS[signal])
    mean_PV, variance = moments(tree, case.engine_PV, weight_YT * ratio_YT, gradient_YTV)
    scale = float(wanted_PV.norm())
    return float((mean_PV - wanted_PV).norm()) / scale, math.sqrt(max(variance, 0.0)) / scale


def measure(num_cases: int, horizon: int) -> list[dict]:
    """Return one row per signal, reduction, distance and form: medians over the cases."""
    tree, rows = Tree(horizon), []
    for distance in DISTANCES:
        cases = [random_case(tree, distance, seed) for seed in range(num_cases)]
        for signal in SIGNALS:
            for reduction in REDUCTIONS:
                for form in FORMS:
                    pairs = [bias_and_deviation(tree, case, signal, reduction, form) for case in cases]
                    bias, deviation = torch.tensor(pairs, dtype=torch.float64).median(0).values.tolist()
                    row = {"signal": signal, "reduction": reduction, "distance": distance, "form": form}
                    rows.append({**row, "bias": bias, "deviation": deviation})
    return rows


def report(record: dict) -> str:
    lines = [
        "# What importance sampling corrects",
        "",
        f"`python benchmarks/importance.py`, caopd {record['caopd']}, {record['timestamp']}: {record['num_cases']} "
        f"random students, engines and teachers over {VOCABULARY} tokens, every completion of at most "
        f"{record['horizon']} tokens enumerated. Distance: standard deviation of the engine's logits around the "
        "student's. In each cell: bias of the mean gradient / standard deviation of one completion's gradient, both in "
        "percent of the length of the gradient over the student's own completions, medians over the cases. A bias "
        "below 0.001 % is float32's rounding of the ratios.",
    ]
    for signal in SIGNALS:
        for reduction in REDUCTIONS:
            lines += ["", f"## {signal}, {reduction}", "", f"| ratio | {' | '.join(map(str, DISTANCES))} |"]
            lines.append("|---" * (len(DISTANCES) + 1) + "|")
            for form in FORMS:
                rows = [
                    row
                    for row in record["rows"]
                    if (row["signal"], row["reduction"], row["form"]) == (signal, reduction, form)
                ]
                cells = [f"{100 * row['bias']:.3f} / {100 * row['deviation']:.0f}" for row in rows]
                lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_cases", type=int, default=100)
    parser.add_argument("--horizon", type=int, default=6)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    record = {
        "benchmark": "importance",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "caopd": version("caopd"),
        "num_cases": options.num_cases,
        "horizon": options.horizon,
        "rows": measure(options.num_cases, options.horizon),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "importance.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.results / "importance.md").write_text(report(record))
    print(report(record))


if __name__ == "__main__":
    main()
