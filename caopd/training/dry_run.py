"""``caopd fit --dry_run``: what a fit would train on, of rows and tokenizer alone; no weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from caopd.commands.outputs import tell
from caopd.errors import ConfigError, name_of
from caopd.evaluation.held_out import load_held_out
from caopd.rollouts.declared_marks import declared_marks
from caopd.rollouts.decoding import decode_ids, opens_thought
from caopd.rounds.batches import BatchPlan
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.prompts import Curriculum, RoundPrompts
from caopd.rounds.samples import train_samples
from caopd.texts import in_terminal
from caopd.training import subcommands
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule
from caopd.training.planning import PlannedRun, processes_of, student_of
from caopd.training.shown_sample import show_sample
from caopd.types import Example, Rollout, StopReason, VerifiedGroup, VerifiedRollout
from caopd.verifiers.verification import Verification

OPTION = "--dry_run"
_STATED = 0.9
"""What the completions that are made up state as their confidence; a revision is then seen to replace it."""


def run(arguments: Sequence[str]) -> int:
    """Show what a fit would train on and return the exit status.

    Args:
        arguments: Command line of ``caopd fit``, with or without the option.
    """
    given = [each for each in arguments if each != OPTION]

    def dry_run(*parts: Any, **settings: Any) -> None:  # noqa: ANN401 (LightningCLI's own)
        show(PlannedRun(*parts, **settings), Console(highlight=False))
        tell([], [["caopd", "plan", *given[1:]], ["caopd", *given]])

    return subcommands.run(given, dry_run)


def show(cli: PlannedRun, console: Console) -> None:
    """Check settings, rows and lengths as a fit does, and print one training sample and the steps.

    Args:
        cli: The config with its parts.
        console: Where to print.

    Raises:
        ConfigError: Settings do not fit together.
        DataError: A row cannot be used.
        PromptTooLongError: A prompt does not fit the model.
    """
    trainer, model, data = cli.trainer_settings, cli.model, cli.datamodule
    plan = BatchPlan(data.batch_size, trainer.accumulate_grad_batches, processes_of(trainer), data.tokens_per_batch)
    num_steps = data.check_round(model, plan)
    encoder = SampleEncoder(
        model.tokenizer, data.confidence, data.template_arguments, model.max_length, data.sampling.max_new_tokens
    )
    curriculum = Curriculum(data.stages, data.round.num_prompts_per_round, data.seed)
    lengths: list[int] = []

    def check(examples: Sequence[Example]) -> None:
        encoder.check(examples, model.method)
        lengths.extend(len(prompt) for prompt in encoder.student_prompts(examples))

    curriculum.load(check)
    held_out = load_held_out(data.stages, data.evaluation, "validation")
    _say(console, _rows_checked(lengths, sum(len(each.examples) for each in held_out), encoder))
    first = curriculum.round(0)
    group = _group(first, encoder, model)
    samples = train_samples(model.method, group)
    sample = next((each for each in samples if each.weight), samples[0])
    (tokenized,) = encoder.encode([sample], [group.prompt_ids])
    _say(console, f"first prompt of round 0: example {group.example.id!r}, answer {group.example.target!r}")
    for line in _made_up(group):
        _say(console, line)
    show_sample(tokenized, model.loss, model.tokenizer, console)
    console.print()
    for line in _steps(trainer, model, data, plan, num_steps):
        _say(console, line)


def _say(console: Console, line: str) -> None:
    console.print(in_terminal(line), soft_wrap=True)


def _rows_checked(lengths: Sequence[int], num_held_out: int, encoder: SampleEncoder) -> str:
    return (
        f"{len(lengths)} training rows and {num_held_out} for validation can be used; the longest prompt has "
        f"{max(lengths)} tokens, with the longest completion {max(lengths) + encoder.longest_completion} of "
        f"{encoder.max_length}"
    )


def _group(prompts: RoundPrompts, encoder: SampleEncoder, model: DistillationModule) -> VerifiedGroup:
    """Return the group of the first prompt: two rollouts say what the demonstration says, the others nothing."""
    example = prompts.examples[0]
    if model.method.min_rollouts == 0:
        return encoder.unsampled([example])[0]
    (prompt_ids,) = encoder.student_prompts([example])
    tokenizer, form = encoder.tokenizer, encoder.confidence_format
    segment = form.render(_STATED)
    right = f"{example.demonstration or example.target}\n{segment}"
    texts = [right, right, *[segment] * max(1, model.method.min_rollouts - 2)]
    verify = Verification(prompts.verifier, form, marks=declared_marks(tokenizer))
    begun = opens_thought(tokenizer, prompt_ids)
    rollouts = [verify(_rollout(text, encoder), example, begun) for text in texts]
    rewarded = tuple(_rewarded(each, example, model) for each in rollouts)
    share = sum(verdict.correct for each in rewarded if (verdict := each.verdict)) / len(rewarded)
    return VerifiedGroup(example, prompt_ids, rewarded, (share,) * len(rewarded))


def _rollout(text: str, encoder: SampleEncoder) -> Rollout:
    tokenizer = encoder.tokenizer
    ids = (*tokenizer(text, add_special_tokens=False)["input_ids"], int(tokenizer.eos_token_id))
    return Rollout(ids, decode_ids(tokenizer, ids), StopReason.EOS, (0.0,) * len(ids), policy_version=0)


def _rewarded(verified: VerifiedRollout, example: Example, model: DistillationModule) -> VerifiedRollout:
    rewards = {name: reward(example, verified) for name, reward in model.method.named_rewards.items()}
    return replace(verified, rewards=rewards or None)


def _made_up(group: VerifiedGroup) -> list[str]:
    """Return what is said of completions that no model has sampled."""
    if not group.rollouts:
        return ["the completion is the demonstration of the data"]
    first = group.rollouts[0]
    verdict = "correct" if first.verdict is not None and first.verdict.correct else "not correct"
    said = [
        f"made up, as no model is loaded: {len(group.rollouts)} rollouts that state {_STATED:.2f}; two say what the "
        f"demonstration says, which the verifier finds {verdict}, the others nothing: mu_hat is {group.mu_hats[0]:.2f}"
    ]
    if verdict != "correct":
        said.append("warning: a completion that says what the demonstration says should be correct: check `data.task`")
    if first.reading.value is None:
        said.append("warning: the stated confidence is not read back: check `data.confidence` and the chat template")
    return said


def _steps(
    trainer: Namespace, model: DistillationModule, data: RolloutDataModule, plan: BatchPlan, num_steps: int
) -> list[str]:
    """Return the lines about rounds, steps and what is trained."""
    num_samples, total = data.num_samples(model), num_steps * (trainer.max_epochs or 0)
    rounds = f"{trainer.max_epochs} rounds" if (trainer.max_epochs or -1) > 0 else "rounds without end"
    most = f", {total} in all" if total > 0 else ""
    rollouts = f" x {data.round.num_rollouts} rollouts" if model.method.min_rollouts else ""
    teacher = name_of(model.teacher_rule).rpartition(".")[2] if model.loss.needs_teacher else "none"
    return [
        f"{rounds} of {data.round.num_prompts_per_round} prompts{rollouts}, {num_samples} training samples",
        f"{num_steps} optimizer steps a round{most}; each takes {plan.batch_size * plan.accumulate * plan.world_size} "
        f"samples: batch_size {plan.batch_size} x accumulate_grad_batches {plan.accumulate} x {plan.world_size} "
        f"{'process' if plan.world_size == 1 else 'processes'}",
        f"method {type(model.method).__name__}, loss {type(model.loss).__name__}, teacher {teacher}, engine "
        f"{type(data.engine).__name__}",
        f"trained: {_trained(trainer, model)}",
        "nothing was trained or written",
    ]


def _trained(trainer: Namespace, model: DistillationModule) -> str:
    name = model.source.name_or_path
    try:
        student = student_of(model, trainer)
    except ConfigError:  # a mixture of experts, whose size is not known without its weights
        return f"{'low-rank adapters' if model.source.lora else 'all weights'} of {name}"
    if not student.adapted:
        return f"all {student.trained:,} weights of {name}, {student.trained_dtype}"
    rank = model.source.lora.rank if model.source.lora else 0
    return (
        f"{student.trained:,} weights of low-rank adapters (rank {rank}), {student.trained_dtype}, beside "
        f"{student.size.num_parameters:,} frozen ones of {name}, {student.dtype}"
    )
