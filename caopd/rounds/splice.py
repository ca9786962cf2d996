"""Completions to train on: sampled ones, as they are or with another confidence spliced in, and written ones.

Sampled ids are never decoded, edited and encoded again: a revision replaces the tokens of the confidence segment and
leaves every other sampled id as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from caopd.confidence import ConfidenceFormat
from caopd.errors import ModelError
from caopd.reading.thinking import ends_in_thought, said
from caopd.rollouts.declared_marks import declared_marks
from caopd.rollouts.decoding import decode_ids
from caopd.types import ConfidenceOutcome, StopReason, VerifiedRollout

_BYTES_OF_CHARACTERS = 16
"""Number of tokens by which a search over decoded lengths can be off: some characters of four bytes each."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion to train on.

    Attributes:
        token_ids: Its token ids, the end-of-sequence id included.
        confidence_mask: True at the tokens of the confidence segment and at the end-of-sequence id after it.
        sampled_logprobs: The engine's log-probability (nats) of every id, None where the engine did not sample this id
            after these ids.
    """

    token_ids: tuple[int, ...]
    confidence_mask: tuple[bool, ...]
    sampled_logprobs: tuple[float | None, ...]


def sampled_completion(verified: VerifiedRollout, decode: Callable[[Sequence[int]], str]) -> Completion:
    """Return the completion as it was sampled, with its confidence segment marked.

    Args:
        verified: The rollout and the span of its confidence segment.
        decode: Decodes token ids as the engines do.
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
    """Return the completion with its confidence segment overwritten, or appended where it had none.

    Every other sampled id stays.

    A completion that ends within its thinking stays as it was sampled: it has no answer to be confident of. Where the
    segment held what the rest needs to be read alike, such as a quotation mark, a segment is appended instead.

    White space after the segment is removed, text after it stays. A sampled token that reaches into the segment from
    outside is replaced by the encoding of its outside part. Log-probabilities are known up to the segment only: the
    text after it was sampled after another segment.

    Args:
        verified: The rollout and the span of its confidence segment.
        confidence: The confidence that the segment states afterwards.
        confidence_format: Writes the segment, and reads it back.
        tokenizer: Encodes the segment.
    """

    def decode(ids: Sequence[int]) -> str:
        return decode_ids(tokenizer, ids)

    if verified.reading.outcome is ConfidenceOutcome.UNFINISHED:
        return sampled_completion(verified, decode)
    segment = confidence_format.render(confidence)
    revised = _spliced(verified, verified.reading.span, segment, tokenizer)
    marks, begun = declared_marks(tokenizer), verified.thoughts[:1] != () and verified.thoughts[0][0] == 0
    stated = confidence_format.parse(said(decode(revised.token_ids), begun, marks)).value
    if verified.reading.span is None or stated == confidence_format.parse(segment).value:
        return revised
    if ends_in_thought(verified.rollout.text, begun, marks):  # no answer can follow
        return sampled_completion(verified, decode)
    return _spliced(verified, None, segment, tokenizer)


def _spliced(
    verified: VerifiedRollout, span: tuple[int, int] | None, segment: str, tokenizer: PreTrainedTokenizerBase
) -> Completion:
    """Return the completion with ``segment`` in place of the characters ``span``, or on a line after the text."""

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
    """Encode a written response, its confidence on a line of its own after it, and an end-of-sequence id.

    Args:
        text: The response, without a confidence segment.
        confidence: The confidence that the segment states; None leaves the segment out.
        confidence_format: Writes the segment.
        tokenizer: Encodes response and segment.
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
    """Return ids of ``segment`` that decode to it when they stand after ``kept``.

    Some tokenizers put a space before every text that they encode: then the segment is encoded after another text,
    whose ids are dropped.

    Raises:
        ModelError: Neither way gives the segment back.
    """
    expected = decode_ids(tokenizer, kept) + segment
    for candidate in _encodings(tokenizer, segment):
        if decode_ids(tokenizer, [*kept, *candidate]) == expected:
            return tuple(candidate)
    raise ModelError(
        f"Expected the tokenizer {tokenizer.name_or_path!r} to encode {segment!r} so that it reads the same behind a "
        "completion, but no encoding does. Choose another confidence format (`data.confidence`) or model."
    )


def _encodings(tokenizer: PreTrainedTokenizerBase, segment: str) -> Iterator[list[int]]:
    """Yield the segment's ids alone, and behind some texts; nearly always the first are those that fit."""
    yield tokenizer(segment, add_special_tokens=False)["input_ids"]
    for anchor in ("a", "a\n"):
        anchor_ids = tokenizer(anchor, add_special_tokens=False)["input_ids"]
        both = tokenizer(anchor + segment, add_special_tokens=False)["input_ids"]
        if both[: len(anchor_ids)] == anchor_ids:
            yield both[len(anchor_ids) :]
