"""The tables of ``confidence_targets.md``."""

from __future__ import annotations

from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t

from comparing.results import mean_and_spread
from targeting.copying import NUM_QUESTIONS
from targeting.forms import FORMS, LITERAL
from targeting.hard_draws import HARD_SHARE
from targeting.training import LAST_ROUNDS, LOGGED, PARTS

SHOWN = ("success", "confidence", "gap", "ece", "brier", "format_adherence")
PAIRED = ("gap", "ece", "brier", "success")


def page(record: dict) -> str:
    """Return the whole page."""
    machine = record["environment"]
    sizes = sorted({str(run["num_rollouts"]) for run in record["runs"]}, key=int)
    trained = " ".join(["--embedded DIR --num_rollouts", *sizes]) if sizes else ""
    lines = [
        "# The confidence that CaOPD on SDPO teaches",
        "",
        f"`{f'python benchmarks/confidence_targets.py {trained}'.strip()}`, caopd {machine['versions']['caopd']}, "
        f"{machine['timestamp'][:10]}. *Literal*: a rollout is trained where another one of its group is right "
        "(`calibrate_all: false`). *Unsolved groups*: the confidence tokens of groups without a success are trained, "
        "too. *All rollouts*: also those of the only success of a group (`calibrate_all: true`, the default).",
        "",
        "## What is taught, by enumeration",
        "",
        "Mean of the confidence that is taught to rollouts of prompts with one success rate, Monte Carlo estimate, "
        "over all groups of G; in brackets the share of rollouts whose confidence is trained.",
    ]
    for size in dict.fromkeys(row["num_rollouts"] for row in record["taught"]):
        lines += ["", f"### G = {size}", "", *_enumerated([r for r in record["taught"] if r["num_rollouts"] == size])]
    shares = ", ".join(f"{name} {share:.3f}" for name, share in record["copied"].items())
    lines += [
        "",
        "## Whether the embedded teacher copies the note",
        "",
        f"Share of {NUM_QUESTIONS} confidences, each a random eighth behind a random answer, that are the teacher's "
        f"most likely continuation, token by token: {shares}.",
    ]
    if record["runs"]:
        lines += ["", "## What the embedded model learns", "", *_trained(record)]
    return "\n".join(lines) + "\n"


def _enumerated(rows: list[dict]) -> list[str]:
    rates = list(dict.fromkeys(row["rate"] for row in rows))
    lines = [_row(["true success", *(f"{rate:.2f}" for rate in rates)]), _row(["---"] * (1 + len(rates)))]
    for form in FORMS:
        cells = [f"{row['mean']:.3f} ({row['share']:.2f})" for row in rows if row["form"] == form]
        lines.append(_row([form, *cells]))
    return lines


def _trained(record: dict) -> list[str]:
    runs, machine = record["runs"], record["environment"]
    seconds = sum(run["cpu_seconds"] for run in runs)
    lines = [
        f"{record['num_rounds']} rounds with the quickstart's settings and CaOPD on SDPO, on `DrawTask` where "
        f"{HARD_SHARE:.0%} of the questions list no digit that fits and any of the ten was drawn (*hard*: true success "
        ".10, whatever is answered; e digits fit in the others: 1/e at best). Judged are the rollouts of the last "
        f"{LAST_ROUNDS} rounds, sampled at temperature 1 before they are trained on; every question is seen once. gap: "
        "mean stated confidence minus success; ECE: 10 bins, over completions that state a confidence. Seeds that "
        f"nothing was tuned on. Mean ± standard deviation over the seeds. {len(runs)} runs, {seconds / 60:.0f} CPU "
        f"minutes, {machine['cpus']} CPU cores, {machine['processes']} runs at a time.",
    ]
    for size in dict.fromkeys(run["num_rollouts"] for run in runs):
        by_form = {form: [r for r in runs if (r["form"], r["num_rollouts"]) == (form, size)] for form in FORMS}
        lines += ["", f"### G = {size}", "", *_levels(by_form), "", *_differences(by_form), "", *_logged(by_form)]
    return lines


def _levels(by_form: dict[str, list[dict]]) -> list[str]:
    lines = [_row(["questions", "form", "seeds", *SHOWN]), _row(["---"] * (3 + len(SHOWN)))]
    for part in PARTS:
        for form, runs in by_form.items():
            cells = [mean_and_spread([run["parts"][part][name] for run in runs]) for name in SHOWN]
            lines.append(_row([part, form, str(len(runs)), *cells]))
    return lines


def _differences(by_form: dict[str, list[dict]]) -> list[str]:
    """Return the paired differences from the literal form, with 95 % intervals of their mean over the seeds."""
    lines = [
        "Minus the literal form, seed by seed: mean and its 95 % interval (Student's t over the seeds). Size of "
        "the gap: |gap|.",
        "",
        _row(["questions", "form", "size of the gap", *PAIRED]),
        _row(["---"] * (3 + len(PAIRED))),
    ]
    literal = {run["seed"]: run for run in by_form[LITERAL]}
    for part in PARTS:
        for form in (each for each in FORMS if each != LITERAL):
            pairs = [(run["parts"][part], literal[run["seed"]]["parts"][part]) for run in by_form[form]]
            sizes = interval([abs(new["gap"]) - abs(old["gap"]) for new, old in pairs])
            cells = [interval([new[name] - old[name] for new, old in pairs]) for name in PAIRED]
            lines.append(_row([part, form, sizes, *cells]))
    return lines


def _logged(by_form: dict[str, list[dict]]) -> list[str]:
    names = [f"`{name}`" for name in LOGGED]
    lines = [_row(["form, logged", *names]), _row(["---"] * (1 + len(names)))]
    for form, runs in by_form.items():
        lines.append(_row([form, *(mean_and_spread([run["logged"][name] for run in runs]) for name in LOGGED)]))
    return lines


def interval(values: list[float]) -> str:
    """Return the mean and its 95 % interval; of one value, the value."""
    if len(values) < 2:
        return f"{fmean(values):+.3f}"
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return f"{fmean(values):+.3f} [{fmean(values) - half:+.3f}, {fmean(values) + half:+.3f}]"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
