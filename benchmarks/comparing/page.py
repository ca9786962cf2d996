"""``comparison.json``, ``comparison.md`` and the figures."""

from __future__ import annotations

from pathlib import Path

from comparing.claims import against_the_papers
from comparing.figures import parameters_of, write_figures
from comparing.results import EVENTS, Comparison, as_json, every_run, mean_and_spread, table
from comparing.settings import NUM_ROLLOUTS, STEPS_PER_ROUND

ROLLOUTS_NOTE = (
    "Rollouts: prompts, optimizer steps and the one trained rollout of a prompt are the same for every K, so that only "
    "mu_hat differs; the rollouts grow with K, and so does the time. Equal rollouts would change the number of prompts "
    "with K. The row of 8 is the main table's, of the same seeds."
)
DIVERGENCES_NOTE = "Divergences: of body / of confidence. The first row is the main table's, of the same seeds."
SIZES_NOTE = (
    "The embedded architecture, three layers each, warm-started by `python -m caopd.training.warm_start --width W`; "
    "width 64 is the shipped model. What they know before training, of 500 held-out questions: share of answers that "
    "fit the kind of digit asked for (two kinds are taught), and share whose answer and confidence are the context's."
)


def write(comparison: Comparison, results: Path, images: Path) -> None:
    """Write all files; of a part without runs there is none."""
    results.mkdir(parents=True, exist_ok=True)
    (results / "comparison.json").write_text(as_json(comparison))
    (results / "comparison.md").write_text(page(comparison))
    write_figures(comparison, images)


def page(comparison: Comparison) -> str:
    """Return the page of results."""
    sections = [
        "# Methods and ablations on the embedded model",
        _introduction(comparison),
        *_failed(comparison),
        *_section("Against the papers", [against_the_papers(comparison)], bool(comparison.of("methods"))),
    ]
    for event in EVENTS:
        rollouts, divergences = comparison.rollouts(event), comparison.divergences(event)
        methods, sizes = comparison.methods(event), _sizes(comparison, event)
        sections += [
            *_section(f"Methods: {event}", [table(event, methods)], bool(methods)),
            *_section(f"Rollouts per prompt: CaOPD on SDFT, {event}", [table(f"K, {event}", rollouts)], bool(rollouts)),
            *_section(f"Divergence: CaOPD on SDFT, {event}", [table(event, divergences)], bool(divergences)),
            *_section(f"Sizes of the model: {event}", [sizes], bool(comparison.sizes(event))),
        ]
    sections += [
        *_section("How to read the ablations", [ROLLOUTS_NOTE, DIVERGENCES_NOTE], bool(comparison.of("rollouts"))),
        *_section("The models of other sizes", [SIZES_NOTE, _models(comparison)], bool(comparison.of("models"))),
        *_section("Every run", [every_run([r for r in comparison.records if r["part"] != "models"])], True),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(comparison: Comparison) -> str:
    env, asked = comparison.environment, comparison.asked
    events = "; ".join(f"*{event}*: {meaning}" for event, meaning in EVENTS.items())
    prompts = asked["num_rounds"] * asked["num_prompts"]
    num_runs = sum(each["cpu_seconds"] > 0 for each in comparison.records)
    minutes = comparison.wall_minutes / max(1, env["processes"])  # with 0, all of them were there already
    return (
        f"`python benchmarks/comparison.py`; {env['cpus']} CPU cores, {env['processes']} runs at a time, one thread "
        f"each; {env['timestamp'][:10]}; {num_runs} runs, warm starts included, in {comparison.cpu_minutes:.0f} CPU "
        f"minutes; their times on the clock over {max(1, env['processes'])}: {minutes:.0f} minutes. "
        f"{asked['num_held_out']:,} held-out questions; mean ± standard deviation over the seeds. Every table is of "
        f"one event. {events}. Settings are the quickstart's, chosen for CaOPD on other seeds; no other method was "
        "tuned. CPU seconds are those of the whole process, start and validations "
        f"included.\n\nSettings are those of `configs/quickstart.yaml` with {asked['num_rounds']} rounds of "
        f"{asked['num_prompts']} prompts. Every method but SFT samples {NUM_ROLLOUTS} rollouts of every prompt, "
        f"{NUM_ROLLOUTS * prompts:,} in all, and takes {STEPS_PER_ROUND} optimizer steps a round. Methods whose loss "
        "sees the whole vocabulary train on one rollout of each group, as the quickstart does; vOPD, GRPO, RLCR and "
        "CAR, which see only the sampled token, train on all. SFT sees the same prompts and needs no rollouts."
    )


def _failed(comparison: Comparison) -> list[str]:
    if not comparison.failures:
        return []
    return [
        "## Runs that failed or are missing",
        "\n".join(f"- {each.splitlines()[0]}" for each in comparison.failures),
    ]


def _section(title: str, texts: list[str], there: bool) -> list[str]:
    return [f"## {title}", *texts] if there else []


def _sizes(comparison: Comparison, event: str) -> str:
    parameters = parameters_of(comparison)
    groups = {
        f"width {width}, {parameters[width] / 1000:.0f}k: {name}": runs
        for width, by_name in comparison.sizes(event).items()
        for name, runs in by_name.items()
    }
    return table(f"model, {event}", groups)


def _models(comparison: Comparison) -> str:
    lines = [
        "| width | parameters | fits, taught kinds | fits, other kinds | copies its context | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for each in sorted(comparison.of("models"), key=lambda model: model["width"]):
        cells = [mean_and_spread([each[key]]) for key in ("known", "unknown", "copied")]
        seconds = f"{each['cpu_seconds']:.0f}" if each["cpu_seconds"] else "shipped"
        lines.append(f"| {each['width']} | {each['parameters']:,} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)
