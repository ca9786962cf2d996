import copy
from dataclasses import replace

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.models import SMOLLM2, ModelSource
from caopd.rounds.splice import Completion, revised_completion, sampled_completion, written_completion
from caopd.types import ConfidenceOutcome, StopReason
from tests.needs import needs_smollm2

INLINE = InlineConfidence()
UNICODE_TEXTS = [
    "Die Größe ist 5 µm 😀\nConfidence: 0.90",
    "😀😀\nConfidence: 0.90",
    "答えは B です。\nConfidence: 0.90",
    "👩‍👩‍👧 é é\n\n**Confidence: 0.90**",
    "Confidence: 0.20 at first 🤔\nConfidence: 0.90",
]


def decoded(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def ids_of(tokenizer, *pieces):
    """Ids of pieces that are one token each."""
    ids = tokenizer.convert_tokens_to_ids(list(pieces))
    assert tokenizer.unk_token_id not in ids
    return ids


def byte_fallback_tokenizer(prepend_scheme):
    """A tokenizer like those of Llama 2 and Mistral: characters without a token are spelt in bytes.

    With ``prepend_scheme="first"`` a space is put before every text, and taken off again by the decoder.
    """
    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), "▁"]
    core = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if prepend_scheme == "first" else []
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")


def check_revision(tokenizer, verified, num_kept, text, num_kept_behind=0):
    """The revision keeps the given numbers of ids, marks the rest, and reads as ``text``."""
    ids = verified.rollout.token_ids
    revised = revised_completion(verified, 0.375, INLINE, tokenizer)
    assert revised.token_ids[:num_kept] == ids[:num_kept]
    assert decoded(tokenizer, revised.token_ids) == text
    assert revised.sampled_logprobs == (-0.5,) * num_kept + (None,) * (len(revised.token_ids) - num_kept)
    num_marked = len(revised.token_ids) - num_kept - num_kept_behind
    assert num_marked > 0
    assert revised.confidence_mask == (False,) * num_kept + (True,) * num_marked + (False,) * num_kept_behind
    if num_kept_behind:
        assert revised.token_ids[-num_kept_behind:] == ids[-num_kept_behind:]
    return revised


def test_a_token_that_reaches_into_the_segment_keeps_what_is_outside(tokenizer, sampled):
    six, start, stated, revised, end = ids_of(tokenizer, "6", "\nConfidence: ", "1.00", "0.38", "<|end|>")
    completion = revised_completion(sampled(tokenizer, [six, start, stated, end]), 0.375, INLINE, tokenizer)
    assert completion == Completion((six, start, revised, end), (False, True, True, True), (-0.5, None, None, None))


@pytest.mark.parametrize("ended", [True, False])
def test_a_missing_segment_is_appended_on_a_line_of_its_own(tokenizer, sampled, ended):
    six, start, revised, end = ids_of(tokenizer, "6", "\nConfidence: ", "0.38", "<|end|>")
    stop = StopReason.EOS if ended else StopReason.LENGTH
    verified = sampled(tokenizer, [six, end] if ended else [six], stop)
    completion = revised_completion(verified, 0.375, INLINE, tokenizer)
    assert completion == Completion((six, start, revised, end), (False, True, True, True), (-0.5, None, None, None))


def test_a_missing_segment_behind_a_line_end_gets_no_empty_line(tokenizer, sampled):
    verified = sampled(tokenizer, ids_of(tokenizer, "6", "\n", "<|end|>"))
    check_revision(tokenizer, verified, 2, "6\nConfidence: 0.38")


def test_a_segment_cut_by_the_length_limit_is_completed_and_ended(tokenizer, sampled):
    six, start, revised, end = ids_of(tokenizer, "6", "\nConfidence: ", "0.38", "<|end|>")
    verified = sampled(tokenizer, [six, start], StopReason.LENGTH)
    assert verified.reading.outcome is ConfidenceOutcome.MALFORMED
    completion = revised_completion(verified, 0.375, INLINE, tokenizer)
    assert completion == Completion((six, start, revised, end), (False, True, True, True), (-0.5, None, None, None))


@pytest.mark.parametrize("ended", [True, False])
def test_text_behind_the_segment_stays(tokenizer, sampled, ended):
    behind = ids_of(tokenizer, "\n", "6", *(["<|end|>"] if ended else []))
    ids = ids_of(tokenizer, "A", "\nConfidence: ", "1.00") + behind
    verified = sampled(tokenizer, ids, StopReason.EOS if ended else StopReason.LENGTH)
    check_revision(tokenizer, verified, 1, "A\nConfidence: 0.38\n6", num_kept_behind=len(behind))


def test_white_space_behind_the_segment_goes(tokenizer, sampled):
    verified = sampled(tokenizer, ids_of(tokenizer, "6", "\nConfidence: ", "1.00", "\n", " ", "<|end|>"))
    revised = check_revision(tokenizer, verified, 1, "6\nConfidence: 0.38")
    assert revised.token_ids[-1] == tokenizer.eos_token_id
    assert len(revised.token_ids) == 4


@pytest.mark.parametrize("stop_reason", list(StopReason))
@pytest.mark.parametrize("text", ["<think>\nConfidence: 0.90, but", "B <think>Confidence: 0.90", "so\n[THINK]B"])
def test_what_ends_within_its_thinking_stays_as_it_was_sampled(byte_level_tokenizer, sampled, text, stop_reason):
    ids = byte_level_tokenizer(text)["input_ids"]
    ids += [byte_level_tokenizer.eos_token_id] if stop_reason is StopReason.EOS else []
    verified = sampled(byte_level_tokenizer, ids, stop_reason)
    completion = revised_completion(verified, 0.375, INLINE, byte_level_tokenizer)
    assert completion == Completion(tuple(ids), (False,) * len(ids), verified.rollout.logprobs)


def test_a_segment_that_cannot_be_overwritten_before_an_unfinished_thought_stays(byte_level_tokenizer, sampled):
    ids = byte_level_tokenizer('Confidence: "0.<a>Confidence: 0.7"<think>')["input_ids"]
    verified = sampled(byte_level_tokenizer, ids, StopReason.LENGTH)
    assert verified.reading.span is not None
    assert revised_completion(verified, 0.375, INLINE, byte_level_tokenizer).token_ids == tuple(ids)


@pytest.mark.parametrize(
    ("text", "revised"),
    [
        ("<think>Confidence: 0.3</think>\nB", "<think>Confidence: 0.3</think>\nB\nConfidence: 0.38"),
        ("Confidence: 0.3</think>B", "Confidence: 0.3</think>B\nConfidence: 0.38"),
        ("B\nConfidence: 0.7\n<think>so", "B\nConfidence: 0.38\n<think>so"),
        ("B\nConfidence:\n\n**0.7**", "B\nConfidence: 0.38"),
        ("B\nConfidence: 0.", "B\nConfidence: 0.38"),
        ("B\nConfidence: 0.7; Answer: B", "B\nConfidence: 0.38; Answer: B"),
        ("B\nConfidence: 0.7\nOn confidence: a guess", "B\nConfidence: 0.38\nOn confidence: a guess"),
        ('{"confidence": 0.7}', '{"confidence": 0.7}\nConfidence: 0.38'),
        ("with confidence: B", "with confidence: B\nConfidence: 0.38"),
        ("I will state Confidence: 0.7.\nB", "I will state Confidence: 0.7.\nB\nConfidence: 0.38"),
        (
            "1. Solve.\n2. Confidence: 0.7\n<answer>B</answer>",
            "1. Solve.\n2. Confidence: 0.7\n<answer>B</answer>\nConfidence: 0.38",
        ),
        ("A (confidence: 0.2)\nB (confidence: 0.7)", "A (confidence: 0.2)\nB (confidence: 0.7)\nConfidence: 0.38"),
        ("B\n| Confidence | 70% |\nDone", "B\nConfidence: 0.38\nDone"),
        # Without the quotation mark, the second one would be no quotation and count.
        ('Confidence: "0.<a>Confidence: 0.7"', 'Confidence: "0.<a>Confidence: 0.7"\nConfidence: 0.38'),
    ],
)
def test_a_revision_states_the_confidence_where_it_is_read(byte_level_tokenizer, sampled, text, revised):
    ids = [*byte_level_tokenizer(text)["input_ids"], byte_level_tokenizer.eos_token_id]
    completion = revised_completion(sampled(byte_level_tokenizer, ids), 0.375, INLINE, byte_level_tokenizer)
    assert decoded(byte_level_tokenizer, completion.token_ids) == revised
    assert INLINE.parse(revised).value == 0.38


def test_a_thought_between_declared_marks_is_not_what_a_revision_states(byte_level_tokenizer, sampled):
    tokenizer = copy.deepcopy(byte_level_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</muse>')[-1] }}{% endfor %}"
    stated, thought = "B\nConfidence: 0.70", "<muse>Confidence: 0.30</muse>"
    ids = [*tokenizer(f"{stated}\n{thought}")["input_ids"], tokenizer.eos_token_id]
    thoughts = ((len(stated) + 1, len(stated) + 1 + len(thought)),)
    verified = replace(sampled(tokenizer, ids), reading=INLINE.parse(stated), thoughts=thoughts)
    completion = revised_completion(verified, 0.375, INLINE, tokenizer)
    assert decoded(tokenizer, completion.token_ids) == f"B\nConfidence: 0.38\n{thought}"


def test_the_last_segment_is_revised_and_earlier_ones_stay(tokenizer, sampled):
    start = "\nConfidence: "
    verified = sampled(tokenizer, ids_of(tokenizer, "6", start, "0.20", start, "1.00", "<|end|>"))
    check_revision(tokenizer, verified, 3, "6\nConfidence: 0.20\nConfidence: 0.38")


def test_the_sampled_stop_id_ends_the_revision(tokenizer, sampled):
    six, start, stated, other_stop = ids_of(tokenizer, "6", "\nConfidence: ", "1.00", "<|user|>")
    verified = sampled(tokenizer, [six, start, stated, other_stop])
    assert check_revision(tokenizer, verified, 1, "6\nConfidence: 0.38").token_ids[-1] == other_stop


def test_the_tag_format_is_spliced_too(tokenizer, sampled):
    text = "6\n<confidence>1.00</confidence>"
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    verified = sampled(tokenizer, ids, confidence_format=TagConfidence())
    revised = revised_completion(verified, 0.375, TagConfidence(), tokenizer)
    assert revised.token_ids[:2] == tuple(ids[:2])
    assert decoded(tokenizer, revised.token_ids) == "6\n<confidence>0.38</confidence>"


@pytest.mark.parametrize("text", UNICODE_TEXTS)
@pytest.mark.parametrize("stop_reason", list(StopReason))
def test_characters_of_several_tokens_before_the_segment_stay(byte_level_tokenizer, sampled, text, stop_reason):
    ids = byte_level_tokenizer(text)["input_ids"]
    if stop_reason is StopReason.EOS:
        ids.append(byte_level_tokenizer.eos_token_id)
    verified = sampled(byte_level_tokenizer, ids, stop_reason)
    start = verified.reading.span[0]
    num_kept = max(n for n in range(len(ids)) if text[:start].startswith(decoded(byte_level_tokenizer, ids[:n])))
    revised = check_revision(byte_level_tokenizer, verified, num_kept, text[:start] + "Confidence: 0.38")
    assert revised.token_ids[-1] == byte_level_tokenizer.eos_token_id


@pytest.mark.parametrize("text", UNICODE_TEXTS)
@pytest.mark.parametrize("prepend_scheme", ["never", "first"])
def test_characters_spelt_in_bytes_before_the_segment_stay(sampled, text, prepend_scheme):
    tokenizer = byte_fallback_tokenizer(prepend_scheme)
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert decoded(tokenizer, ids) == text
    verified = sampled(tokenizer, ids)
    start = verified.reading.span[0]
    num_kept = len(tokenizer(text[:start])["input_ids"])
    check_revision(tokenizer, verified, num_kept, text[:start] + "Confidence: 0.38")


def test_a_token_that_reaches_out_of_the_segment_keeps_what_is_outside(sampled):
    spelt = ["B", "\nCon", "fidence:", " 0.", "90\nDo", "ne"]
    words = ["<end>", *spelt, *"0123456789\n:.", "Confidence", " ", "D", "o"]
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"Confidence|[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")
    verified = sampled(tokenizer, ids_of(tokenizer, *spelt, "<end>"))
    assert verified.rollout.text == "B\nConfidence: 0.90\nDone"
    check_revision(tokenizer, verified, 1, "B\nConfidence: 0.38\nDone", num_kept_behind=2)


@pytest.mark.parametrize("prepend_scheme", ["never", "first"])
def test_no_space_is_put_before_an_appended_segment(sampled, prepend_scheme):
    tokenizer = byte_fallback_tokenizer(prepend_scheme)
    ids = [*tokenizer("So B.")["input_ids"], tokenizer.eos_token_id]
    check_revision(tokenizer, sampled(tokenizer, ids), len(ids) - 1, "So B.\nConfidence: 0.38")


def test_a_character_cut_by_the_length_limit_stays(byte_level_tokenizer, sampled):
    ids = byte_level_tokenizer("B 😀")["input_ids"][:-1]
    verified = sampled(byte_level_tokenizer, ids, StopReason.LENGTH)
    assert verified.rollout.text.endswith("�")
    check_revision(byte_level_tokenizer, verified, len(ids), verified.rollout.text + "\nConfidence: 0.38")


@needs_smollm2
def test_the_tokenizer_of_smollm2_is_spliced(sampled):
    tokenizer = ModelSource(SMOLLM2).load_tokenizer()
    for text in [*UNICODE_TEXTS, "<answer>\nB\n</answer>\nConfidence: 0.90", "So it's B.\n\nConfidence:0.9"]:
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        verified = sampled(tokenizer, ids)
        start = verified.reading.span[0]
        num_kept = max(n for n in range(len(ids)) if text[:start].startswith(decoded(tokenizer, ids[:n])))
        assert num_kept >= 1
        revised = check_revision(tokenizer, verified, num_kept, text[:start] + "Confidence: 0.38")
        assert revised.token_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("text", ["6", "65\n"])
@pytest.mark.parametrize("form", [INLINE, TagConfidence()])
def test_a_written_response_ends_with_its_confidence(tokenizer, text, form):
    completion = written_completion(text, 0.375, form, tokenizer)
    before = len(tokenizer(text)["input_ids"])
    assert decoded(tokenizer, completion.token_ids) == text.rstrip("\n") + "\n" + form.render(0.375)
    assert completion.token_ids[-1] == tokenizer.eos_token_id
    assert decoded(tokenizer, completion.token_ids[:before]) == text
    marked = len(completion.token_ids) - before
    assert completion.confidence_mask == (False,) * before + (True,) * marked
    assert completion.sampled_logprobs == (None,) * len(completion.token_ids)


def test_a_written_response_without_a_confidence_just_ends(tokenizer):
    ids = (*ids_of(tokenizer, "6"), tokenizer.eos_token_id)
    assert written_completion("6", None, INLINE, tokenizer) == Completion(ids, (False, False), (None, None))


@pytest.mark.parametrize("prepend_scheme", ["never", "first"])
@pytest.mark.parametrize("text", ["B", "Größe 😀\n\nB"])
def test_a_written_response_reads_as_it_was_written(prepend_scheme, text):
    tokenizer = byte_fallback_tokenizer(prepend_scheme)
    completion = written_completion(text, 1.0, INLINE, tokenizer)
    assert decoded(tokenizer, completion.token_ids) == text + "\nConfidence: 1.00"


def test_a_written_response_has_the_tokens_that_a_student_would_sample(tokenizer, sampled):
    """As a rollout that says the same: nothing but the origin differs."""
    six, start, stated, end = ids_of(tokenizer, "6", "\nConfidence: ", "1.00", "<|end|>")
    rollout = sampled_completion(sampled(tokenizer, [six, start, stated, end]), lambda ids: decoded(tokenizer, ids))
    written = written_completion("6", 1.0, INLINE, tokenizer)
    assert (written.token_ids, written.confidence_mask) == (rollout.token_ids, rollout.confidence_mask)


def test_the_sampled_segment_is_marked_with_the_end_behind_it(tokenizer, sampled):
    def marked(*pieces):
        verified = sampled(tokenizer, ids_of(tokenizer, *pieces))
        completion = sampled_completion(verified, lambda ids: decoded(tokenizer, ids))
        assert completion.token_ids == verified.rollout.token_ids
        assert completion.sampled_logprobs == verified.rollout.logprobs
        return [piece for piece, is_marked in zip(pieces, completion.confidence_mask, strict=True) if is_marked]

    start = "\nConfidence: "
    assert marked("6", start, "1.00", "<|end|>") == [start, "1.00", "<|end|>"]
    assert marked("6", "\n", start, "1.00", "\n", "<|end|>") == [start, "1.00", "\n", "<|end|>"]
    assert marked("6", start, "1.00", "\n", "7", "<|end|>") == [start, "1.00"]
    assert marked("6", start, "0.20", start, "1.00") == [start, "1.00"]
    assert marked("6", "<|end|>") == []
