"""Shows a training sample in a terminal: prompts and completion token by token, with ids and masks in colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from caopd.losses import TrainingLoss
from caopd.rounds.filling import TokenizedSample
from caopd.texts import escaped

_KINDS = {"body": "green", "confidence": "bold magenta", "not in the loss": "bright_black"}
"""What a token of a completion is trained as, and its colour; in words, too, where there are no colours."""
_SPECIAL, _IDS = "bold yellow", "cyan"


def show_sample(
    sample: TokenizedSample, loss: TrainingLoss, tokenizer: PreTrainedTokenizerBase, console: Console
) -> None:
    """Print the student's prompt, the teacher's, and the completion that follows both.

    Args:
        sample: The sample.
        loss: Says how many first tokens are left out of the loss.
        tokenizer: Says what every id reads as.
        console: Where to print.
    """
    _show_prompt("Student's prompt", sample.student_prompt_ids, tokenizer, console)
    if sample.teacher_prompt_ids == sample.student_prompt_ids:
        _title("Teacher's prompt: the same, if the loss has a teacher", console)
    else:
        _show_prompt("Teacher's prompt", sample.teacher_prompt_ids, tokenizer, console)
    ids = sample.completion.token_ids
    kinds = kinds_of(sample, loss)
    _title(f"Completion that is trained on ({len(ids)} tokens)", console)
    _print_tokens(ids, [_KINDS[kind] for kind in kinds], tokenizer, console)
    for kind, style in _KINDS.items():
        of_kind = [each for each, its in zip(ids, kinds, strict=True) if its == kind]
        console.print(Text(f"{kind}: {_listed(of_kind)}", style=style), soft_wrap=True)


def kinds_of(sample: TokenizedSample, loss: TrainingLoss) -> list[str]:
    """Return what every token of the completion is trained as: ``body``, ``confidence`` or ``not in the loss``.

    Args:
        sample: The sample.
        loss: Says how many first tokens are left out of the loss.
    """
    marked = zip(sample.completion.confidence_mask, sample.weights, strict=True)
    return [
        "not in the loss" if weight == 0 or index < loss.skip_first_tokens else "confidence" if stated else "body"
        for index, (stated, weight) in enumerate(marked)
    ]


def _show_prompt(title: str, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, console: Console) -> None:
    special = set(tokenizer.all_special_ids)
    _title(f"{title} ({len(ids)} tokens)", console)
    _print_tokens(ids, [_SPECIAL if each in special else "" for each in ids], tokenizer, console)
    console.print(Text(f"ids: {_listed(ids)}", style=_IDS), soft_wrap=True)


def _title(text: str, console: Console) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _print_tokens(
    ids: Sequence[int], styles: Sequence[str], tokenizer: PreTrainedTokenizerBase, console: Console
) -> None:
    """Print runs of tokens of one colour as text; a line feed is shown as one."""
    whole, start = Text(), 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or styles[end] != styles[start]:
            text = str(tokenizer.decode(list(ids[start:end]), clean_up_tokenization_spaces=False))
            whole.append("\n".join(map(escaped, text.split("\n"))), style=styles[start])
            start = end
    console.print(whole, soft_wrap=True)


def _listed(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids)) or "none"
