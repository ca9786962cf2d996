"""The model card: what was trained, how to ask it for a confidence, and how well calibrated it was measured to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from caopd.metrics.catalogue import FLOOR, interval, shown_of_runs
from caopd.models import SMOLLM2, ModelSource
from caopd.run_directory import EVENTS, Measured, Metrics, class_name, method_name, setting
from caopd.texts import in_markdown

_HUB_NAMES = {SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct"}
_SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
"""Settings of the sampled event that the card names, with their defaults."""


@dataclass(frozen=True)
class CardFacts:
    """The facts that a model card tells.

    Attributes:
        name: Name of the model.
        weights: Which of the run's two models it is, ``student`` or ``teacher``.
        step: Number of optimizer steps that the weights have had.
        instruction: The sentence after the question that asks for a confidence.
        settings: The run's config, as read.
        metrics: What was measured before and after training, None where nothing was.
    """

    name: str
    weights: str
    step: int
    instruction: str
    settings: Mapping[str, Any]
    metrics: tuple[Measured | None, Measured | None]

    @property
    def measured(self) -> Measured | None:
        """What was measured of exactly these weights, None where nothing was."""
        if self.weights != "student":
            return None
        return next((measured for measured in self.metrics if measured and measured.step == self.step), None)

    @property
    def task(self) -> str:
        """Name of the task's class."""
        return class_name(setting(self.settings, "data", "task"))


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown, with its metadata at the top.

    Args:
        facts: What the card tells.
    """
    base = str(setting(facts.settings, "model", "source", "name_or_path") or ModelSource.name_or_path)
    base = Path(base).name if Path(base).is_absolute() else base  # no user's paths
    method, task = in_markdown(method_name(facts.settings)), in_markdown(facts.task)
    whose = "" if facts.weights == "student" else ", the moving average that taught the student"
    return f"""---
{_metadata(facts, base)}
---

# {in_markdown(facts.name)}

<code>{in_markdown(base)}</code> trained with {method} on {task}, {facts.step} optimizer steps
([caopd](https://arxiv.org/abs/2604.16830));
the weights are those of the {facts.weights}{whose}.

## Measured calibration

{_calibration(facts)}

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({facts.name!r})
model = AutoModelForCausalLM.from_pretrained({facts.name!r}, dtype="auto")
content = question + "\\n\\n" + {facts.instruction!r}
messages = [{{"role": "user", "content": content}}]
options = dict(add_generation_prompt=True, return_dict=True, return_tensors="pt"{_arguments(facts)})
prompt = tokenizer.apply_chat_template(messages, **options)
completion = model.generate(**prompt)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(completion, skip_special_tokens=True))
```

The sentence behind the question asks for the confidence, as in training. The generation config is greedy; give vLLM
`SamplingParams(temperature=0)`.
"""


def _metadata(facts: CardFacts, base: str) -> str:
    hub = _HUB_NAMES.get(base, base)
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=hub if hub.count("/") == 1 and not Path(hub).exists() else None,
        tags=["caopd", "calibration", "on-policy-distillation"],
        model_name=facts.name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=facts.task.lower(),
                dataset_name=f"{facts.task} (validation)",
                metric_type=spec.name,
                metric_name=f"{spec.in_full}, {event}",
                metric_value=value,
            )
            for event, metrics in (facts.measured.events if facts.measured else {}).items()
            for spec in shown_of_runs()
            if (value := metrics.get(spec.name)) is not None
        ],
    ).to_yaml()


def _calibration(facts: CardFacts) -> str:
    initial, final = facts.metrics
    if initial is None and final is None:
        return "None: the checkpoint's run has no `metrics.json`. How far its confidences can be trusted is not known."
    moments = [(title, each) for title, each in (("before training", initial), ("after training", final)) if each]
    shown = [
        (f"{event}, {title}, step {measured.step}", measured.events[event])
        for event in EVENTS
        for title, measured in moments
        if event in measured.events
    ]
    names = {spec.name: spec.in_full for spec in shown_of_runs()} | {FLOOR: "ECE that a calibrated model would show"}
    rows = [
        f"| {title} | " + " | ".join(_estimate(metrics, name) for _, metrics in shown) + " |"
        for name, title in names.items()
    ]
    counts = " | ".join(str(metrics.get("n")) for _, metrics in shown)
    header = f"| | {' | '.join(title for title, _ in shown)} |\n|---|{'---|' * len(shown)}"
    table = "\n".join([header, *rows, f"| completions | {counts} |"])
    note = (
        "In brackets: 95 % intervals; `-` is undefined. Completions without a confidence count in the accuracy alone."
    )
    return f"{_standing(facts)}\n\n{_events(facts.settings)}\n\n{table}\n\n{note}"


def _standing(facts: CardFacts) -> str:
    how = f"Completions of held-out prompts of {in_markdown(facts.task)}."
    if facts.weights != "student":
        return f"**Of the student, not of these weights**, which were not measured. {how}"
    if facts.measured is None:
        return f"**Not of these weights**, which are those of step {facts.step} and were not measured. {how}"
    return f"{how} Other questions, prompts and sampling may be calibrated otherwise."


def _events(settings: Mapping[str, Any]) -> str:
    values = {name: setting(settings, "data", "sampling", name) for name in _SAMPLING}
    said = [
        f"{name} {default if values[name] is None else values[name]}"
        for name, default in _SAMPLING.items()
        if name == "temperature" or values[name] not in (None, default)
    ]
    return (
        "*greedy*: the stated confidence is judged by whether the greedy completion is right; cite it for use with "
        "greedy decoding. *sampled*: by whether a completion is right that is sampled as in training "
        f"({in_markdown(', '.join(said))}); this is what training aims at."
    )


def _arguments(facts: CardFacts) -> str:
    arguments = setting(facts.settings, "data", "template_arguments") or {}
    return f", **{arguments!r}" if arguments else ""


def _estimate(metrics: Metrics, name: str) -> str:
    value, between = metrics.get(name), interval(metrics, name)
    if value is None:
        return "-"
    return f"{value:.3f}" if between is None else f"{value:.3f} [{between[0]:.3f}, {between[1]:.3f}]"
