"""The model card: what was trained, how to ask it for a confidence, and how well calibrated it was measured to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from caopd.metrics.catalogue import shown_of_runs
from caopd.models import SMOLLM2, ModelSource
from caopd.run_directory import Metrics, class_name, method_name, setting
from caopd.texts import in_markdown

_HUB_NAMES = {SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct"}


@dataclass(frozen=True)
class CardFacts:
    """The facts that a model card tells.

    Attributes:
        name: Name of the model.
        weights: Which of the run's two models it is, ``student`` or ``teacher``.
        step: Number of optimizer steps that the weights have had.
        instruction: The sentence after the question that asks for a confidence.
        settings: The run's config, as read.
        metrics: Metrics before and after training, None where not measured.
    """

    name: str
    weights: str
    step: int
    instruction: str
    settings: Mapping[str, Any]
    metrics: tuple[Metrics | None, Metrics | None]

    @property
    def measured(self) -> Metrics | None:
        """The metrics that were measured of exactly these weights, None where there are none."""
        if self.weights != "student":
            return None
        return next((metrics for metrics in self.metrics if metrics and metrics.get("step") == self.step), None)

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
                metric_name=spec.in_full,
                metric_value=value,
            )
            for spec in shown_of_runs()
            if facts.measured and (value := facts.measured.get(spec.name)) is not None
        ],
    ).to_yaml()


def _calibration(facts: CardFacts) -> str:
    initial, final = facts.metrics
    if initial is None and final is None:
        return "None: the checkpoint's run has no `metrics.json`. How far its confidences can be trusted is not known."
    columns = [("before training", initial), ("after training", final)]
    shown = [(f"{title}, step {metrics['step']}", metrics) for title, metrics in columns if metrics]
    rows = [
        f"| {spec.in_full} | " + " | ".join(_number(metrics.get(spec.name)) for _, metrics in shown) + " |"
        for spec in shown_of_runs()
    ]
    counts = " | ".join(str(metrics.get("n")) for _, metrics in shown)
    header = f"| | {' | '.join(title for title, _ in shown)} |\n|---|{'---|' * len(shown)}"
    table = "\n".join([header, *rows, f"| completions | {counts} |"])
    note = "`-` is undefined. Completions without a confidence count in the accuracy alone."
    return f"{_standing(facts)}\n\n{table}\n\n{note}"


def _standing(facts: CardFacts) -> str:
    how = f"{_sampling(facts.settings)} of held-out prompts of {in_markdown(facts.task)}."
    if facts.weights != "student":
        return f"**Of the student, not of these weights**, which were not measured. {how}"
    if facts.measured is None:
        return f"**Not of these weights**, which are those of step {facts.step} and were not measured. {how}"
    return f"{how} Other questions, prompts and sampling may be calibrated otherwise."


def _sampling(settings: Mapping[str, Any]) -> str:
    temperature = setting(settings, "data", "evaluation", "sampling", "temperature") or 0.0
    return "Greedy completions" if temperature == 0 else f"Completions at temperature {in_markdown(str(temperature))}"


def _arguments(facts: CardFacts) -> str:
    arguments = setting(facts.settings, "data", "template_arguments") or {}
    return f", **{arguments!r}" if arguments else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
