"""Which confidence CaOPD on SDPO teaches, and what is learned; writes ``benchmarks/results/confidence_targets.*``.

SDPO shows a rollout a solution only where another one of its group succeeded. Compared are CaOPD on these rollouts
alone (*literal*), CaOPD that teaches the confidence in groups without a success, too, and CaOPD that teaches it to
every rollout. The mean confidence that is taught is enumerated, and exact.

``--embedded`` adds the embedded model, trained in every form on a task with questions that nobody can answer. Finished
runs are kept: a second call goes on where the first one ended.

    python benchmarks/confidence_targets.py
    python benchmarks/confidence_targets.py --embedded runs/confidence_targets --jobs 16
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fits import ROOT, all_or_exit, environment
from targeting.copying import copied
from targeting.enumeration import RATES, SIZES, taught
from targeting.forms import FORMS
from targeting.page import page
from targeting.training import SIZES as TRAINED_SIZES
from targeting.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", type=Path, help="where the embedded model's runs go; without it, none")
    parser.add_argument("--num_rounds", type=int, default=100)
    parser.add_argument("--num_rollouts", type=int, nargs="+", default=list(TRAINED_SIZES), help="G, of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one process of one thread each")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    runs = []
    if options.embedded:
        options.embedded.mkdir(parents=True, exist_ok=True)
        wanted = options.num_rollouts, options.num_rounds, options.seeds, options.jobs
        runs = all_or_exit(train(options.embedded, *wanted))
    record = {
        "environment": environment(options.jobs),
        "num_rounds": options.num_rounds,
        "taught": [
            {"form": form, "num_rollouts": size, "rate": rate, "mean": mean, "share": share}
            for size in SIZES
            for rate in RATES
            for form, method in FORMS.items()
            for mean, share in [taught(method, rate, size)]
        ],
        "copied": copied(),
        "runs": runs,
    }
    (options.results / "confidence_targets.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.results / "confidence_targets.md").write_text(page(record))


if __name__ == "__main__":
    main()
