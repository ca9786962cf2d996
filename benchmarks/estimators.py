"""Bias, variance and cost of the estimators of mu_hat; writes ``benchmarks/results/estimators.json`` and ``.md``.

Estimators and the rule of the adaptive budget are the package's own. For every success rate of a distribution, all
numbers of successes are enumerated, batch by batch, so values are exact. Estimators that learn do so first, from
simulated rounds of the same distribution, under the budget that they are judged with.

``--embedded`` adds the embedded model: training under fixed and adaptive budgets, and its success rates, from 128
rollouts of 256 prompts before and after training. Finished runs are kept: a second call goes on where the first one
ended.

    python benchmarks/estimators.py
    python benchmarks/estimators.py --embedded runs/estimators
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from estimating.enumeration import LIMITS, POLICIES, SYNTHETIC, judge, oracle_share, stopping_bias
from estimating.page import page
from estimating.training import measured_rates, train
from fits import ROOT, all_or_exit, environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", type=Path, help="where the embedded model's runs go; without it, none")
    parser.add_argument("--num_rounds", type=int, default=100)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25], help="rates are those of the first"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    distributions, runs = dict(SYNTHETIC), []
    if options.embedded:
        options.embedded.mkdir(parents=True, exist_ok=True)
        runs = all_or_exit(train(options.embedded, options.num_rounds, options.seeds, options.processes))
        distributions |= measured_rates(options.embedded, options.num_rounds, options.seeds[0])
    record = {
        "environment": environment(options.processes),
        "num_rounds": options.num_rounds,
        "distributions": {name: {p.name: judge(p, rates) for p in POLICIES} for name, rates in distributions.items()},
        "oracle_shares": {name: oracle_share(rates) for name, rates in distributions.items()},
        "rates": {name: {f"{rate:.4f}": weight for rate, weight in d.items()} for name, d in distributions.items()},
        "stopping": {str(limit): stopping_bias(limit, distributions) for limit in LIMITS},
        "runs": runs,
    }
    (options.results / "estimators.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.results / "estimators.md").write_text(page(record))


if __name__ == "__main__":
    main()
