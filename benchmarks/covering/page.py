"""The page of ``benchmarks/intervals.py``."""

from __future__ import annotations

from covering.distributions import DISTRIBUTIONS
from covering.measures import PER_PROMPT, RESAMPLES

LOWEST, HIGHEST = 0.90, 0.98
"""What the share of intervals that hold the truth is to lie between; at a true error of 0 it may be higher."""


def page(record: dict) -> str:
    """Return the page; of a part without results there is nothing."""
    sections = [
        "# Intervals",
        "`python benchmarks/intervals.py`. Everything is drawn from distributions whose true values are known.",
    ]
    for name, section in (("errors", _errors), ("pairs", _pairs), ("measures", _measures)):
        if record.get(name):
            sections += section(record[name])
    return "\n\n".join(sections) + "\n"


def _errors(cells: list[dict]) -> list[str]:
    return [
        "## The interval of the ECE",
        f"Share of the 95 % intervals of `calibration_certainty` that hold the true 10-bin ECE, {_sets(cells)} data "
        f"sets a cell; then, in brackets, the share that lies above it and the share that lies below. "
        f"{_verdict(cells)}",
        "\n".join(f"- **{name}**: {each.says}" for name, each in DISTRIBUTIONS.items()),
        "Completions of a prompt depend on each other: the correlation of what makes them right is 0.5.",
        _table(cells, lambda c: f"{c['held']:.3f} ({c['too_high']:.3f}, {c['too_low']:.3f})", "held"),
        "## Bias, and what calibration looks like",
        "Mean of the ECE minus the true one: plug-in, then debiased; in brackets the root mean square errors of both. "
        "The last column is the noise floor: the mean ECE that a calibrated model with these confidences shows.",
        _table(
            cells,
            lambda c: (
                f"{c['bias_plug_in']:+.3f}, {c['bias_debiased']:+.3f} "
                f"({c['rmse_plug_in']:.3f}, {c['rmse_debiased']:.3f})"
            ),
            "floor",
        ),
        "## The p-value of calibration",
        "Share of p-values below 0.05. At a true ECE of 0 it should be 0.05; above, it is how often so many prompts "
        "find it.",
        _table(cells, lambda c: f"{c['significant']:.3f}", "width"),
    ]


def _table(cells: list[dict], text, last: str) -> str:
    errors = sorted({cell["error"] for cell in cells})
    head = {"held": "", "floor": " floor |", "width": " width of the interval |"}[last]
    lines = [
        "| distribution | a prompt | prompts | " + " | ".join(f"true {error:.2f}" for error in errors) + " |" + head,
        "|---|---|---|" + "---|" * (len(errors) + bool(head)),
    ]
    for key in dict.fromkeys((c["distribution"], c["per_prompt"], c["num_prompts"]) for c in cells):
        row = {c["error"]: c for c in cells if (c["distribution"], c["per_prompt"], c["num_prompts"]) == key}
        shown = [text(row[error]) if error in row else "" for error in errors]
        end = [f"{sum(c[last] for c in row.values()) / len(row):.3f}"] if head else []
        lines.append("| " + " | ".join([*map(str, key), *shown, *end]) + " |")
    return "\n".join(lines)


def _verdict(cells: list[dict]) -> str:
    above = [c["held"] for c in cells if c["error"] > 0]
    at_zero = [c["held"] for c in cells if c["error"] == 0]
    outside = [
        f"{c['distribution']}, {c['num_prompts']} prompts of {c['per_prompt']}, true {c['error']:.2f}: {c['held']:.3f}"
        for c in cells
        if c["held"] < LOWEST or (c["error"] > 0 and c["held"] > HIGHEST)
    ]
    text = ""
    if at_zero:
        text += f"At a true ECE of 0: {min(at_zero):.3f} to {max(at_zero):.3f}. "
    if above:
        text += f"Above it: {min(above):.3f} to {max(above):.3f}, mean {sum(above) / len(above):.3f}. "
    bounds = f"Outside {LOWEST:.2f} to {HIGHEST:.2f}"
    return text + (f"{bounds}: {'; '.join(outside)}." if outside else f"{bounds} is no cell.")


def _pairs(cells: list[dict]) -> list[str]:
    lines = [
        "| pair | a prompt | prompts | true ECEs | found lower | found higher | holds the truth |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        truths = " and ".join(f"{error:.2f}" for error in c["errors"])
        shares = " | ".join(f"{c[key]:.3f}" for key in ("lower", "higher", "held"))
        lines.append(f"| {', '.join(c['pair'])} | {c['per_prompt']} | {c['num_prompts']} | {truths} | {shares} |")
    equal = [c["lower"] + c["higher"] for c in cells if c["errors"][0] == c["errors"][1]]
    summary = (
        f" Where the true ECEs are equal, a difference is found in {min(equal):.3f} to {max(equal):.3f} of the cases, "
        f"{sum(equal) / len(equal):.3f} on average."
        if equal
        else ""
    )
    return [
        "## Paired differences of the ECE",
        f"Second ECE minus first, of two sets on the same prompts, {_sets(cells)} data sets a cell: how often the "
        f"paired interval lies below 0, above it, and holds the true difference.{summary}",
        "\n".join(lines),
    ]


def _measures(cells: list[dict]) -> list[str]:
    lines = [
        "| measure | true value | " + " | ".join(f"{c['num_prompts']} prompts" for c in cells) + " |",
        "|---|---|" + "---|" * len(cells),
    ]
    for name, value in cells[0]["truth"].items():
        lines.append(f"| {name} | {value:.4f} | " + " | ".join(f"{c['held'][name]:.3f}" for c in cells) + " |")
    return [
        "## All measures",
        f"One distribution: prompts differ in difficulty, {PER_PROMPT} completions share it, confidences are 0.1 too "
        f"high and stated in steps of 0.1; {_sets(cells)} data sets of each size, {RESAMPLES} resamples. All but `ece` "
        "and `debiased_ece` are bootstrap intervals. "
        "`brier_uncertainty` is at its maximum of 0.25, which no resample exceeds.",
        "\n".join(lines),
    ]


def _sets(cells: list[dict]) -> str:
    return " or ".join(map(str, sorted({cell["data_sets"] for cell in cells})))
