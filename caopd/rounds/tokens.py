"""Token ids: encoding prompts, splicing confidences into completions, collating batches.

The only room that handles the ids of prompts and completions. Sampled ids are never decoded, edited and encoded
again: a revision replaces the tokens of the confidence segment and leaves every other sampled id as it was.

Shape suffixes: B sequences, L padded length, C padded completion length, T completion tokens of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from caopd.confidence import ConfidenceFormat
from caopd.errors import ModelError
from caopd.losses import Denominators
from caopd.reading.thinking import ends_in_thought
from caopd.rollouts.decoding import decode_ids
from caopd.types import ConfidenceOutcome, Message, StopReason, VerifiedRollout

_BYTES_OF_CHARACTERS = 16
"""Tokens by which a search over decoded lengths can be off: some characters of four bytes each."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion to train on.

    Attributes:
        token_ids: Its ids, the end-of-sequence id included.
        confidence_mask: True at the tokens of the confidence segment and at the end of sequence behind it.
        sampled_logprobs: The engine's log-probability (nats) of every id, None where the engine did not sample this id
            behind these ids.
    """

    token_ids: tuple[int, ...]
    confidence_mask: tuple[bool, ...]
    sampled_logprobs: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class TokenizedSample:
    """One training sequence, twice: as the student and as the teacher sees it.

    Attributes:
        student_prompt_ids: The question.
        teacher_prompt_ids: The question with its privileged context.
        completion: Follows either prompt.
        weight: Weight in the loss.
        copies_context: Whether the completion states the confidence that stands in the teacher's context.
        advantage: The sample's, None where the method gives none.
    """

    student_prompt_ids: tuple[int, ...]
    teacher_prompt_ids: tuple[int, ...]
    completion: Completion
    weight: float
    copies_context: bool
    advantage: float | None = None


@dataclass(frozen=True)
class TokenBatch:
    """A micro-batch of training sequences, right-padded. A predictor is a position whose next token is completion.

    Attributes:
        student_ids_BL: Question and completion, long.
        student_mask_BL: 1 at tokens.
        student_predictors_BL: True at predictors.
        teacher_ids_BL: Question, context and completion, long.
        teacher_mask_BL: 1 at tokens.
        teacher_predictors_BL: True at predictors.
        completion_ids_BC: Completion ids, long.
        completion_mask_BC: True at completion tokens.
        confidence_mask_BC: True at tokens of the confidence segment.
        sampled_logprob_BC: The engine's log-probabilities (nats) of the completion ids, under the model's unscaled
            distribution, float32; NaN at tokens that were not sampled as they stand, 0 at padding.
        weight_B: Weight in the loss, float32.
        advantage_B: Advantage, float32; NaN where the method gives none.
        copies_context_B: Whether the completion states its context's confidence.
        denominators: Totals over the whole optimizer step: all micro-batches, all processes.
    """

    student_ids_BL: Tensor
    student_mask_BL: Tensor
    student_predictors_BL: Tensor
    teacher_ids_BL: Tensor
    teacher_mask_BL: Tensor
    teacher_predictors_BL: Tensor
    completion_ids_BC: Tensor
    completion_mask_BC: Tensor
    confidence_mask_BC: Tensor
    sampled_logprob_BC: Tensor
    weight_B: Tensor
    advantage_B: Tensor
    copies_context_B: Tensor
    denominators: Denominators

    def to(self, device: torch.device | str, **arguments: Any) -> TokenBatch:  # noqa: ANN401 (Tensor.to's own)
        """Return the batch on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "denominators"}
        return replace(self, **{name: tensor.to(device, **arguments) for name, tensor in tensors.items()})


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    template_arguments: Mapping[str, object],
) -> list[tuple[int, ...]]:
    """Render conversations with the tokenizer's chat template and return the ids of the prompts.

    Args:
        tokenizer: With a chat template.
        conversations: What was said so far, per prompt.
        template_arguments: Passed to the template, for example ``{"enable_thinking": False}``.

    Raises:
        ModelError: If the template cannot be read, or refuses the messages.
    """
    if not conversations:
        return []
    try:
        texts = tokenizer.apply_chat_template(
            [[dict(message) for message in messages] for messages in conversations],
            tokenize=False,
            add_generation_prompt=True,
            **template_arguments,
        )
    except TemplateError as error:
        roles = sorted({message["role"] for messages in conversations for message in messages})
        raise ModelError(
            f"Expected the chat template of {tokenizer.name_or_path!r} to render messages of the roles "
            f"{', '.join(roles)}, but it does not: {error}. Correct its `chat_template`, or choose a task without a "
            "role that the model does not know."
        ) from error
    return [tuple(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def sampled_completion(verified: VerifiedRollout, decode: Callable[[Sequence[int]], str]) -> Completion:
    """Return the completion as sampled, its confidence segment marked.

    Args:
        verified: The rollout and the span of its confidence segment.
        decode: Decodes ids as the engines do.
    """
    ids, span, logprobs = verified.rollout.token_ids, verified.reading.span, verified.rollout.logprobs
    if span is None:
        return Completion(ids, (False,) * len(ids), logprobs)
    first, last = _token_range(verified, span, decode)
    if not verified.rollout.text[span[1] :].strip():
        last = len(ids)
    return Completion(ids, tuple(first <= index < last for index in range(len(ids))), logprobs)


def revised_completion(
    verified: VerifiedRollout,
    confidence: float,
    confidence_format: ConfidenceFormat,
    tokenizer: PreTrainedTokenizerBase,
) -> Completion:
    """Overwrite the confidence segment; append one where there is none. Every other sampled id stays.

    A completion that ends within its thinking stays as it was sampled: it has no answer to be confident of. Where the
    text would be read in another way without what the segment held, such as a quotation mark, one is appended, too.

    White space behind the segment goes, text behind it stays. A sampled token that reaches into the segment from
    outside is replaced by the encoding of its outside part. Log-probabilities are known up to the segment only: what
    stays behind it was sampled behind another one.

    Args:
        verified: The rollout and the span of its confidence segment.
        confidence: What the segment states afterwards.
        confidence_format: Renders the segment, and reads it back.
        tokenizer: Encodes it.
    """

    def decode(ids: Sequence[int]) -> str:
        return decode_ids(tokenizer, ids)

    if verified.reading.outcome is ConfidenceOutcome.UNFINISHED:
        return sampled_completion(verified, decode)
    segment = confidence_format.render(confidence)
    revised = _spliced(verified, verified.reading.span, segment, tokenizer)
    stated = confidence_format.parse(decode(revised.token_ids)).value
    if verified.reading.span is None or stated == confidence_format.parse(segment).value:
        return revised
    if ends_in_thought(verified.rollout.text):  # nothing can be said behind it
        return sampled_completion(verified, decode)
    return _spliced(verified, None, segment, tokenizer)


def _spliced(
    verified: VerifiedRollout, span: tuple[int, int] | None, segment: str, tokenizer: PreTrainedTokenizerBase
) -> Completion:
    """Return the completion with ``segment`` in place of the characters ``span``, or on a line behind it."""

    def decode(ids: Sequence[int]) -> str:
        return decode_ids(tokenizer, ids)

    ids, text = verified.rollout.token_ids, verified.rollout.text
    ended = verified.rollout.stop_reason is StopReason.EOS
    if span is None:
        before = len(ids) - 1 if ended else len(ids)
        segment = ("\n" if text and not text.endswith("\n") else "") + segment
        rest: tuple[int, ...] = ()
    else:
        before, after = _token_range(verified, span, decode)
        segment = text[len(decode(ids[:before])) : span[0]] + segment
        rest = ids[after:] if text[span[1] :].strip() else ()
        if rest:
            segment += text[span[1] : len(decode(ids[:after]))]
    segment_ids = _encode_behind(tokenizer, ids[:before], segment)
    if not rest:
        segment_ids += ids[-1:] if ended else (tokenizer.eos_token_id,)
    mask = (False,) * before + (True,) * len(segment_ids) + (False,) * len(rest)
    logprobs = (*verified.rollout.logprobs[:before], *(None,) * (len(segment_ids) + len(rest)))
    return Completion((*ids[:before], *segment_ids, *rest), mask, logprobs)


def written_completion(
    text: str, confidence: float | None, confidence_format: ConfidenceFormat, tokenizer: PreTrainedTokenizerBase
) -> Completion:
    """Encode a response that nobody sampled, its confidence on a line of its own behind it, and an end of sequence.

    Args:
        text: Without a confidence segment.
        confidence: What the segment states; None leaves it out.
        confidence_format: Renders the segment.
        tokenizer: Encodes both.
    """
    ids, segment_ids = _encode_behind(tokenizer, (), text), ()
    if confidence is not None:
        segment = ("" if text.endswith("\n") else "\n") + confidence_format.render(confidence)
        segment_ids = (*_encode_behind(tokenizer, ids, segment), tokenizer.eos_token_id)
    rest = segment_ids or (tokenizer.eos_token_id,)
    mask = (False,) * len(ids) + (bool(segment_ids),) * len(rest)
    return Completion((*ids, *rest), mask, (None,) * len(mask))


def _token_range(
    verified: VerifiedRollout, span: tuple[int, int], decode: Callable[[Sequence[int]], str]
) -> tuple[int, int]:
    """Return the tokens [first, last) that overlap the characters ``span``."""
    ids, text = verified.rollout.token_ids, verified.rollout.text
    first = _longest_prefix(ids, text, span[0], decode)
    last = _longest_prefix(ids, text, span[1], decode)
    while last < len(ids) and len(decode(ids[:last])) < span[1]:
        last += 1
    return first, last


def _longest_prefix(ids: Sequence[int], text: str, limit: int, decode: Callable[[Sequence[int]], str]) -> int:
    """Return the largest number of leading ids whose text is a prefix of ``text[:limit]``."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        if len(decode(ids[:middle])) <= limit:
            low = middle
        else:
            high = middle - 1
    # Ids that end inside a character decode to replacement characters, up to one per byte: the search may have ended
    # some characters too low, or inside one.
    reach = range(min(low + _BYTES_OF_CHARACTERS, len(ids)), -1, -1)
    return next(count for count in reach if text[:limit].startswith(decode(ids[:count])))


def _encode_behind(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int], segment: str) -> tuple[int, ...]:
    """Return ids of ``segment`` that decode to it when they stand behind ``kept``.

    Some tokenizers put a space before every text that they encode: then the segment is encoded behind another text,
    whose ids are dropped.

    Raises:
        ModelError: If neither gives the segment back.
    """
    expected = decode_ids(tokenizer, kept) + segment
    candidates = [tokenizer(segment, add_special_tokens=False)["input_ids"]]
    for anchor in ("a", "a\n"):
        anchor_ids = tokenizer(anchor, add_special_tokens=False)["input_ids"]
        both = tokenizer(anchor + segment, add_special_tokens=False)["input_ids"]
        if both[: len(anchor_ids)] == anchor_ids:
            candidates.append(both[len(anchor_ids) :])
    for candidate in candidates:
        if decode_ids(tokenizer, [*kept, *candidate]) == expected:
            return tuple(candidate)
    raise ModelError(
        f"Expected the tokenizer {tokenizer.name_or_path!r} to encode {segment!r} so that it reads the same behind a "
        "completion, but no encoding does. Choose another confidence format (`data.confidence`) or model."
    )


def collate(samples: Sequence[TokenizedSample], denominators: Denominators, pad_token_id: int) -> TokenBatch:
    """Pad samples to one batch.

    Args:
        samples: At least one.
        denominators: Totals over the whole optimizer step.
        pad_token_id: Fills the right of shorter sequences.
    """
    student = _pad_side([s.student_prompt_ids for s in samples], samples, pad_token_id)
    teacher = _pad_side([s.teacher_prompt_ids for s in samples], samples, pad_token_id)
    completions = [torch.tensor(s.completion.token_ids) for s in samples]
    logprobs = [_or_nan(s.completion.sampled_logprobs) for s in samples]
    return TokenBatch(
        *student,
        *teacher,
        completion_ids_BC=pad_sequence(completions, batch_first=True, padding_value=pad_token_id),
        completion_mask_BC=pad_sequence([torch.ones_like(c, dtype=torch.bool) for c in completions], True),
        confidence_mask_BC=pad_sequence([torch.tensor(s.completion.confidence_mask) for s in samples], True),
        sampled_logprob_BC=pad_sequence(logprobs, batch_first=True),
        weight_B=torch.tensor([s.weight for s in samples], dtype=torch.float32),
        advantage_B=_or_nan([s.advantage for s in samples]),
        copies_context_B=torch.tensor([s.copies_context for s in samples]),
        denominators=denominators,
    )


def _or_nan(values: Sequence[float | None]) -> Tensor:
    """Return float32 values, NaN for None."""
    return torch.tensor([torch.nan if value is None else value for value in values], dtype=torch.float32)


def _pad_side(
    prompts: Sequence[tuple[int, ...]], samples: Sequence[TokenizedSample], pad_token_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention mask and predictor mask [B, L] of prompts followed by their completions."""
    ids, masks, predictors = [], [], []
    for prompt, sample in zip(prompts, samples, strict=True):
        row = torch.tensor((*prompt, *sample.completion.token_ids))
        position = torch.arange(len(row))
        ids.append(row)
        masks.append(torch.ones_like(row))
        predictors.append((position >= len(prompt) - 1) & (position < len(row) - 1))
    return (
        pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        pad_sequence(masks, batch_first=True),
        pad_sequence(predictors, batch_first=True),
    )
