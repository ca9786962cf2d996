"""Splicing a confidence into sampled ids, for any ids that a byte-level tokenizer can sample."""

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from caopd.confidence import InlineConfidence
from caopd.rounds.splice import revised_completion, sampled_completion
from caopd.types import ConfidenceOutcome, StopReason

SETTINGS = settings(
    derandomize=True,
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
FORM = InlineConfidence()
PIECES = st.sampled_from(
    [
        *("B", "é", "😀", "答", " so", "\n", "\n\n", "  ", "**", "Confidence: ", "confidence:", "0.90", "1", "<a>"),
        *("<think>", "</think>", "[THINK]", "[/THINK]", '"', "{", "}", "A (", " or ", "answer:", "| Confidence |"),
        *("Confidence\n", "confidence is: ", "\\text{", "$", "is", "?", "-", ",", "."),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=8).map("".join)
SEGMENTS = st.sampled_from(
    [
        "",
        "Confidence: 0.90",
        "\nConfidence: 0.90",
        "\n**Confidence:** 85%",
        "Confidence: ",
        ".\nConfidence: 0.90\nDone",
        "\nConfidence:\n0.90",
        "\nConfidence: 0.",
        "\n| Confidence | 90% |",
        "\n</think>\nConfidence: 0.90, since B fits",
        "\nConfidence: 0.90; Answer: B",
        '\n{"confidence": 0.90}',
    ]
)
CONFIDENCES = st.integers(0, 100).map(lambda n: n / 100)


@st.composite
def sampled_ids(draw, tokenizer):
    """Ids that spell a text in any way, not only in the tokenizer's own, cut anywhere when not ended."""
    text = draw(TEXTS) + draw(SEGMENTS) + draw(TEXTS)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    vocabulary = tokenizer.get_vocab()
    ids = []
    for token in tokens:
        if token not in tokenizer.all_special_tokens and draw(st.booleans()):
            ids += [vocabulary[byte] for byte in token]
        else:
            ids.append(vocabulary[token])
    if not draw(st.booleans()):
        cut = draw(st.integers(0, len(ids)))
        return (ids[:cut] or [vocabulary["B"]]), StopReason.LENGTH
    return [*ids, tokenizer.eos_token_id], StopReason.EOS


def decode(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


@st.composite
def finished(draw, tokenizer, sampled):
    """A completion that does not end within its thinking."""
    verified = sampled(tokenizer, *draw(sampled_ids(tokenizer)))
    assume(verified.reading.outcome is not ConfidenceOutcome.UNFINISHED)
    return verified


def num_ids_before(tokenizer, verified):
    """By trying them all: the most leading ids that spell nothing but text before the segment."""
    ids, text = verified.rollout.token_ids, verified.rollout.text
    if verified.reading.span is None:
        return len(ids) - (verified.rollout.stop_reason is StopReason.EOS)
    before = text[: verified.reading.span[0]]
    return max(n for n in range(len(ids) + 1) if before.startswith(decode(tokenizer, ids[:n])))


@SETTINGS
@given(data=st.data(), confidence=CONFIDENCES)
def test_ids_before_the_segment_are_kept_to_the_last_one(byte_level_tokenizer, sampled, data, confidence):
    verified = data.draw(finished(byte_level_tokenizer, sampled))
    revised = revised_completion(verified, confidence, FORM, byte_level_tokenizer)
    kept = num_ids_before(byte_level_tokenizer, verified)
    assert revised.token_ids[:kept] == verified.rollout.token_ids[:kept]
    assert revised.confidence_mask[:kept] == (False,) * kept
    assert revised.confidence_mask[kept]
    assert len(revised.confidence_mask) == len(revised.token_ids)


@SETTINGS
@given(data=st.data(), confidence=CONFIDENCES)
def test_the_revision_reads_as_the_edited_text(byte_level_tokenizer, sampled, data, confidence):
    """What editing the text would give, though no text is edited."""
    verified = data.draw(finished(byte_level_tokenizer, sampled))
    text, span = verified.rollout.text, verified.reading.span
    rendered = FORM.render(confidence)
    expected = text + ("\n" if text and not text.endswith("\n") else "") + rendered
    if span is not None:
        behind = text[span[1] :]
        overwritten = text[: span[0]] + rendered + (behind if behind.strip() else "")
        expected = overwritten if FORM.parse(overwritten).value == confidence else expected
    revised = revised_completion(verified, confidence, FORM, byte_level_tokenizer)
    assert decode(byte_level_tokenizer, revised.token_ids) == expected
    assert FORM.parse(expected).value == confidence


@SETTINGS
@given(data=st.data(), confidence=CONFIDENCES)
def test_the_revision_ends_unless_text_follows_the_segment(byte_level_tokenizer, sampled, data, confidence):
    verified = data.draw(finished(byte_level_tokenizer, sampled))
    text, span = verified.rollout.text, verified.reading.span
    revised = revised_completion(verified, confidence, FORM, byte_level_tokenizer)
    ended = verified.rollout.stop_reason is StopReason.EOS
    followed = span is not None and bool(text[span[1] :].strip())
    assert (revised.token_ids[-1] == byte_level_tokenizer.eos_token_id) == (ended or not followed)
    assert revised.token_ids.count(byte_level_tokenizer.eos_token_id) <= 1
    assert revised.confidence_mask[-1] == (not followed)


@SETTINGS
@given(data=st.data(), opening=st.sampled_from(["<think>", "[THINK]", "so\n<thinking>"]), confidence=CONFIDENCES)
def test_unfinished_thoughts_stay_to_the_last_id(byte_level_tokenizer, sampled, data, opening, confidence):
    start = byte_level_tokenizer(opening)["input_ids"]
    ids, stop_reason = data.draw(sampled_ids(byte_level_tokenizer))
    verified = sampled(byte_level_tokenizer, [*start, *ids], stop_reason)
    assume(verified.reading.outcome is ConfidenceOutcome.UNFINISHED)
    revised = revised_completion(verified, confidence, FORM, byte_level_tokenizer)
    assert revised.token_ids == verified.rollout.token_ids
    assert revised.sampled_logprobs == verified.rollout.logprobs
    assert not any(revised.confidence_mask)


@SETTINGS
@given(data=st.data(), confidence=CONFIDENCES)
def test_revising_twice_is_revising_once(tokenizer, sampled, data, confidence):
    text = data.draw(st.text("6\n BCab.", max_size=8)) + data.draw(SEGMENTS)
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    once = revised_completion(sampled(tokenizer, ids), 0.5, FORM, tokenizer)
    verified = sampled(tokenizer, list(once.token_ids))
    assert revised_completion(verified, 0.5, FORM, tokenizer) == once
    other = revised_completion(verified, confidence, FORM, tokenizer)
    assert other == revised_completion(sampled(tokenizer, ids), confidence, FORM, tokenizer)


@SETTINGS
@given(data=st.data())
def test_the_marked_tokens_are_those_that_overlap_the_segment(byte_level_tokenizer, sampled, data):
    verified = sampled(byte_level_tokenizer, *data.draw(sampled_ids(byte_level_tokenizer)))
    completion = sampled_completion(verified, lambda ids: decode(byte_level_tokenizer, ids))
    ids, text, span = verified.rollout.token_ids, verified.rollout.text, verified.reading.span
    assert completion.token_ids == ids
    if span is None:
        assert not any(completion.confidence_mask)
        return
    first = num_ids_before(byte_level_tokenizer, verified)
    assert not any(completion.confidence_mask[:first])
    last = max(index for index, marked in enumerate(completion.confidence_mask) if marked)
    assert all(completion.confidence_mask[first : last + 1])
    assert decode(byte_level_tokenizer, ids[: last + 1]).startswith(text[: span[1]])
    if text[span[1] :].strip():
        assert not decode(byte_level_tokenizer, ids[:last]).startswith(text[: span[1]])
    else:
        assert last == len(ids) - 1


def test_long_completions_are_spliced_with_few_decodings(byte_level_tokenizer, sampled):
    """Decoding every prefix would take thousands of decodings of long texts."""
    text = "The answer is B.\n" * 2_000 + "Confidence: 0.90"
    ids = [*byte_level_tokenizer(text)["input_ids"], byte_level_tokenizer.eos_token_id]
    verified = sampled(byte_level_tokenizer, ids)
    decodings = []

    def counted(prefix):
        decodings.append(len(prefix))
        return decode(byte_level_tokenizer, prefix)

    sampled_completion(verified, counted)
    assert len(decodings) < 100
