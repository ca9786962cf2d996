import copy
import re
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from caopd.confidence import ConfidenceFormat, InlineConfidence, TagConfidence
from caopd.errors import DataError, ModelError, PromptTooLongError, UserCodeError
from caopd.methods import GRPO, SDFT, SDPO, SFT, CaOPD
from caopd.prompts import student_messages, teacher_messages
from caopd.rollouts.decoding import decode_ids
from caopd.rounds.encoding import SampleEncoder, encode_prompts
from caopd.tasks import DrawTask
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Response,
    StopReason,
    TeacherContext,
    TrainSample,
    Verdict,
    VerifiedGroup,
)

FORM = InlineConfidence()
SYSTEM = Example("long", "Q" * 40, "6", system="S" * 30, demonstration="D" * 50)


@pytest.fixture(scope="module")
def examples():
    return [*DrawTask(num_train=6).examples("train"), SYSTEM]


@pytest.fixture
def encoder(tokenizer):
    return SampleEncoder(tokenizer, FORM, {}, max_length=512, max_new_tokens=8)


def limited(tokenizer, max_length, max_new_tokens=8):
    return SampleEncoder(tokenizer, FORM, {}, max_length, max_new_tokens)


def encoded(encoder, samples):
    """Encoded behind prompts that are rendered for each sample."""
    prompts = [group.prompt_ids for group in encoder.unsampled([sample.example for sample in samples])]
    return encoder.encode(samples, prompts)


def completions_of(tokenizer, sampled):
    end = tokenizer.eos_token_id
    texts = [("6\nConfidence: 1.00", True), ("6", True), ("65", False), ("6\nConfidence: 0.38", True)]
    return [
        sampled(
            tokenizer,
            [*tokenizer(text)["input_ids"], *([end] if ended else [])],
            StopReason.EOS if ended else StopReason.LENGTH,
        )
        for text, ended in texts
    ]


def test_the_students_prompt_reads_as_its_messages(encoder, tokenizer, examples):
    for example, ids in zip(examples, encoder.student_prompts(examples), strict=True):
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        content = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in student_messages(example, FORM))
        assert text == content + "<|assistant|>"


def test_the_teachers_prompt_reads_as_its_messages(encoder, tokenizer, examples):
    context = TeacherContext("solution", "RESPONSE", 0.5, empirical=True)
    for example, ids in zip(examples, encoder.teacher_prompts([(e, context) for e in examples]), strict=True):
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        messages = teacher_messages(example, context, FORM)
        content = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages)
        assert text == content + "<|assistant|>"


def test_a_batch_is_encoded_as_one_by_one(encoder, tokenizer, sampled, examples):
    contexts = [None, TeacherContext("demonstration", "6", 1.0), TeacherContext("solution", "6", 0.5, True)]
    samples = [
        TrainSample(example, completion, context, confidence, weight=0.5, advantage=-1.5)
        for example in examples
        for completion in completions_of(tokenizer, sampled)
        for context in contexts
        for confidence in (None, 0.375)
    ]
    together = encoded(encoder, samples)
    assert together == [encoded(encoder, [sample])[0] for sample in samples]
    for sample, tokenized in zip(samples, together, strict=True):
        assert tokenized.student_prompt_ids == encoder.student_prompts([sample.example])[0]
        assert set(tokenized.weights) == {0.5}
        assert len(tokenized.weights) == len(tokenized.completion.token_ids)
        assert tokenized.advantage == -1.5
        if sample.context is None:
            assert tokenized.teacher_prompt_ids == tokenized.student_prompt_ids
        else:
            pair = (sample.example, sample.context)
            assert tokenized.teacher_prompt_ids == encoder.teacher_prompts([pair])[0]
    assert encoded(encoder, []) == []


@pytest.mark.parametrize("form", [FORM, TagConfidence()], ids=["inline", "tag"])
def test_a_solution_beside_the_empirical_confidence_states_no_other(tokenizer, form):
    encoder = SampleEncoder(tokenizer, form, {}, 512, 8)
    response = f"6\n{form.render(0.2)}\nOr 5?\n{form.render(0.85)}\nNo: 6"
    stated = {}
    for empirical in (True, False):
        context = TeacherContext("solution", response, 0.5, empirical)
        (ids,) = encoder.teacher_prompts([(SYSTEM, context)])
        stated[empirical] = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert f"solution:\n6\nOr 5?\nNo: 6\n{form.render(0.5)}\n" in stated[True]
    assert response in stated[False], "as it was sampled, where nothing asks for exactly one value"


def test_a_completion_without_a_solution_is_trained_at_its_confidence_under_the_note_alone(
    encoder, tokenizer, sampled, examples
):
    verified = sampled(tokenizer, [*tokenizer("6\nConfidence: 1.00")["input_ids"], tokenizer.eos_token_id])
    wrong = replace(verified, verdict=Verdict(False, "6", AnswerOutcome.PARSED))
    group = VerifiedGroup(examples[0], (1,), (wrong, wrong), (0.0, 0.0))
    tokenized = encoded(encoder, CaOPD(SDPO()).train_samples(group))[0]
    shown = tokenizer.decode(tokenized.teacher_prompt_ids, clean_up_tokenization_spaces=False)
    note = "The empirical confidence for this question is 0.00. Output exactly this value in the `Confidence:` field."
    assert shown.endswith(f"{FORM.instruction}\n\n{note}\nCorrectly solve the original question.<|end|><|assistant|>")
    assert tokenizer.decode(tokenized.completion.token_ids) == "6\nConfidence: 0.00<|end|>"
    assert tokenized.weights == tuple(map(float, tokenized.completion.confidence_mask)) == (0.0, 1.0, 1.0, 1.0)
    assert tokenized.copies_context


def test_a_stated_confidence_is_written_into_the_completion(encoder, tokenizer, sampled, examples):
    for completion in completions_of(tokenizer, sampled):
        as_sampled, revised = encoded(
            encoder, [TrainSample(examples[0], completion, None), TrainSample(examples[0], completion, None, 0.8)]
        )
        assert as_sampled.completion.token_ids == completion.rollout.token_ids
        assert tokenizer.decode(revised.completion.token_ids) == completion.body + "\nConfidence: 0.80<|end|>"


@pytest.mark.parametrize(
    ("text", "revised_to", "in_context", "copies"),
    [
        ("6\nConfidence: 1.00", None, 1.0, True),
        ("6\nConfidence: 0.38", None, 1.0, False),
        ("6\nConfidence: 1.00", 0.375, 0.375, True),
        ("6\nConfidence: 0.38", None, 0.375, True),
        ("6", None, 1.0, False),
        ("6", 1.0, None, False),
    ],
)
def test_copies_are_recognised_by_what_is_written(
    encoder, tokenizer, sampled, examples, text, revised_to, in_context, copies
):
    verified = sampled(tokenizer, [*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
    context = TeacherContext("demonstration", "6", in_context)
    (tokenized,) = encoded(encoder, [TrainSample(examples[0], verified, context, revised_to)])
    assert tokenized.copies_context is copies


def test_a_completion_that_ends_within_its_thinking_is_trained_on_as_it_is_and_states_nothing(
    encoder, tokenizer, sampled, examples
):
    verified = sampled(tokenizer, tokenizer("6\nConfidence: 1.00")["input_ids"], StopReason.LENGTH)
    unfinished = ConfidenceReading(None, None, ConfidenceOutcome.UNFINISHED)
    thought = replace(verified, reading=unfinished)
    group = VerifiedGroup(examples[0], (1,), (thought, verified), (0.5, 0.5))
    samples = CaOPD(SDFT()).train_samples(group)
    as_it_is, revised = encoded(encoder, samples)
    assert as_it_is.completion.token_ids == verified.rollout.token_ids
    assert as_it_is.completion.sampled_logprobs == verified.rollout.logprobs
    assert not any(as_it_is.completion.confidence_mask)
    assert not as_it_is.copies_context
    assert revised.copies_context
    assert tokenizer.decode(revised.completion.token_ids) == "6\nConfidence: 0.50<|end|>"


def test_a_prompt_that_just_fits_is_taken_and_one_token_more_is_not(encoder, tokenizer):
    length = len(encoder.student_prompts([SYSTEM])[0])
    # Eight sampled tokens, and a revision that appends "\nConfidence: ", a value and an end of sequence.
    limited(tokenizer, length + 11).student_prompts([SYSTEM])
    with pytest.raises(PromptTooLongError) as caught:
        limited(tokenizer, length + 10).student_prompts([SYSTEM])
    message = str(caught.value)
    for said in ("'long'", f"{length} tokens", "11 tokens", f"takes {length + 10}", "max_new_tokens"):
        assert said in message


def test_the_known_context_is_checked_before_the_first_rollout(encoder, tokenizer):
    context = CaOPD(SDFT()).known_context(SYSTEM)
    length = len(encoder.teacher_prompts([(SYSTEM, context)])[0])
    with pytest.raises(PromptTooLongError, match=r"teacher's prompt \(demonstration\) of example 'long'"):
        limited(tokenizer, length + 7).check([SYSTEM], CaOPD(SDFT()))
    limited(tokenizer, length + 7).check([SYSTEM], CaOPD(SDPO()))


def test_a_written_response_is_trained_on_behind_the_students_prompt(encoder, tokenizer, examples):
    (tokenized,) = encoded(encoder, [TrainSample(examples[0], Response("65"), None, confidence=1.0)])
    assert tokenizer.decode(tokenized.completion.token_ids) == "65\nConfidence: 1.00<|end|>"
    assert tokenized.student_prompt_ids == tokenized.teacher_prompt_ids == encoder.student_prompts(examples[:1])[0]
    assert not tokenized.copies_context


def test_a_student_that_shall_use_contexts_reads_the_teachers_prompt(encoder, tokenizer, examples):
    context = TeacherContext("demonstration", "6", 0.25, empirical=True)
    seen = TrainSample(examples[0], Response("6"), context, 0.25, student_sees_context=True)
    hidden = TrainSample(examples[0], Response("6"), context, 0.25)
    first, second = encoded(encoder, [seen, hidden])
    assert first.student_prompt_ids == first.teacher_prompt_ids == second.teacher_prompt_ids
    assert second.student_prompt_ids == encoder.student_prompts(examples[:1])[0]
    assert first.completion == second.completion


def test_without_rollouts_all_that_is_trained_on_is_checked(encoder, tokenizer):
    """The demonstration of 50 tokens, and not the longest completion that could be sampled."""
    (tokenized,) = encoded(encoder, [TrainSample(SYSTEM, Response(SYSTEM.demonstration), None, 1.0)])
    length = len(tokenized.student_prompt_ids) + len(tokenized.completion.token_ids)
    limited(tokenizer, length, max_new_tokens=500).check([SYSTEM], SFT())
    with pytest.raises(PromptTooLongError, match="'long'"):
        limited(tokenizer, length - 1, max_new_tokens=1).check([SYSTEM], SFT())


@pytest.mark.parametrize("confidence", [None, 0.38])
@pytest.mark.parametrize("ended", [True, False])
def test_what_passed_the_check_is_encoded_whatever_is_sampled(encoder, tokenizer, sampled, confidence, ended):
    """A completion of the longest length, without a confidence, is still a completion to train on."""
    method = CaOPD(SDFT())
    context = method.known_context(SYSTEM)
    max_length = len(encoder.teacher_prompts([(SYSTEM, context)])[0]) + 8
    end = tokenizer.eos_token_id
    ids = [*tokenizer("6" * (7 if ended else 8))["input_ids"], *([end] if ended else [])]
    verified = sampled(tokenizer, ids, StopReason.EOS if ended else StopReason.LENGTH)
    tight = limited(tokenizer, max_length)
    try:
        tight.check([SYSTEM], method)
    except PromptTooLongError:
        return  # refused before the first rollout: nothing is lost
    (tokenized,) = encoded(tight, [TrainSample(SYSTEM, verified, context, confidence)])
    assert len(tokenized.teacher_prompt_ids) + len(tokenized.completion.token_ids) <= max_length


def test_the_students_sequence_fits_the_model_too(encoder, tokenizer, sampled):
    """Without a context (SDPO's weight 0) the student's sequence is the longest one."""
    max_length = len(encoder.student_prompts([SYSTEM])[0]) + 8
    verified = sampled(tokenizer, tokenizer("6" * 8)["input_ids"], StopReason.LENGTH)
    tight = limited(tokenizer, max_length)
    try:
        tight.check([SYSTEM], CaOPD(SDPO()))
        (tokenized,) = encoded(tight, [TrainSample(SYSTEM, verified, None, 0.38, weight=0.0)])
    except PromptTooLongError:
        return
    assert len(tokenized.student_prompt_ids) + len(tokenized.completion.token_ids) <= max_length


def test_without_a_teachers_context_the_students_prompt_alone_must_fit(encoder, tokenizer):
    tight = limited(tokenizer, len(encoder.student_prompts([SYSTEM])[0]) + 11)
    tight.check([SYSTEM], GRPO())
    with pytest.raises(PromptTooLongError, match="teacher"):
        tight.check([SYSTEM], SDPO())


def test_rows_are_checked_by_the_method(encoder):
    row = Example("row-9", "Q", "B")
    with pytest.raises(DataError, match="'row-9'"):
        encoder.check([SYSTEM, row], SDFT())
    encoder.check([SYSTEM, row], SDPO())


def test_template_arguments_reach_the_template(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{% if shout %}!{% endif %}" + tokenizer.chat_template
    plain = SampleEncoder(changed, FORM, {}, 512, 8).student_prompts([SYSTEM])[0]
    shouted = SampleEncoder(changed, FORM, {"shout": True}, 512, 8).student_prompts([SYSTEM])[0]
    assert shouted == (tokenizer.convert_tokens_to_ids("!"), *plain)


def test_a_completion_is_trained_on_behind_the_prompt_it_was_sampled_from(tokenizer, sampled, examples):
    """Also where the template would render another one by then, as those that write the date do."""
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%f') }}" + tokenizer.chat_template
    encoder = SampleEncoder(dated, FORM, {}, 512, 8)
    prompts = encoder.student_prompts(examples)
    assert prompts != encoder.student_prompts(examples)
    completion = completions_of(tokenizer, sampled)[0]
    samples = [TrainSample(example, completion, None) for example in examples]
    assert [each.student_prompt_ids for each in encoder.encode(samples, prompts)] == prompts


def test_prompts_are_encoded_as_their_template_renders_them(byte_level_tokenizer):
    core = Tokenizer.from_str(byte_level_tokenizer.backend_tokenizer.to_str())
    end = byte_level_tokenizer.eos_token_id
    core.post_processor = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", end)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|end|>",
        chat_template="<|end|>{{ messages[0].content }}{% if add_generation_prompt %}|{{ mood }}{% endif %}",
    )
    conversations = [[{"role": "user", "content": text}] for text in ("the answer", "é", "is B.")]
    together = encode_prompts(tokenizer, conversations, {"mood": "calm"})
    assert together == [encode_prompts(tokenizer, [one], {"mood": "calm"})[0] for one in conversations]
    assert [decode_ids(tokenizer, ids) for ids in together] == ["the answer|calm", "é|calm", "is B.|calm"]
    assert [ids.count(end) for ids in together] == [1, 1, 1], "the template's special tokens are not doubled"
    assert encode_prompts(tokenizer, [], {}) == []


class Speechless(InlineConfidence):
    def render(self, confidence):
        if confidence != 1.0:
            raise LookupError("no word for it")
        return super().render(confidence)


class Mute(ConfidenceFormat):
    field_name = "Confidence:"
    render = InlineConfidence.render
    parse = InlineConfidence.parse

    @property
    def instruction(self):
        raise LookupError("no words")


class Unknown(SDFT):
    def known_context(self, example):
        raise LookupError("no demonstration")


def test_what_formats_and_methods_raise_names_them_and_the_row(tokenizer, sampled):
    examples = DrawTask(num_train=2).examples("train")
    name = re.escape(repr(examples[0].id))
    with pytest.raises(UserCodeError, match=rf"Mute .*the prompt of example {name}.*LookupError: no words"):
        SampleEncoder(tokenizer, Mute(), {}, 512, 8).student_prompts(examples)
    with pytest.raises(UserCodeError, match=rf"Unknown .*example {name}.*LookupError"):
        SampleEncoder(tokenizer, InlineConfidence(), {}, 512, 8).check(examples, Unknown())
    encoder = SampleEncoder(tokenizer, Speechless(), {}, 512, 8)
    context = TeacherContext("demonstration", "6", 0.5)
    with pytest.raises(UserCodeError, match=rf"Speechless .*the teacher's prompt of example {name}.*LookupError"):
        encoder.teacher_prompts([(examples[0], context)])
    verified = sampled(tokenizer, tokenizer("6")["input_ids"])
    with pytest.raises(UserCodeError, match=rf"Speechless .*a completion of example {name}.*LookupError"):
        encoder.encode([TrainSample(examples[0], verified, None, confidence=0.5)], [(1,)])


@pytest.mark.parametrize("method", [SDPO(), SDFT(), SFT()])
def test_half_of_a_surrogate_pair_is_an_error_before_the_first_rollout(encoder, method):
    row = Example("row-9", "Q \ud83d" if isinstance(method, SDPO) else "Q", "B", demonstration="B \ud83d")
    with pytest.raises(DataError, match=r"half of a surrogate pair: .*\\ud83d"):
        encoder.check([row], method)


@pytest.mark.parametrize(
    "template",
    ["{{ messages[0] + 1 }}", "{{ 1 / 0 }}", "{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ x.y }}"],
)
def test_a_template_that_fails_or_leaves_its_sandbox_is_an_error(tokenizer, template):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    with pytest.raises(ModelError, match="chat template of"):
        encode_prompts(changed, [[{"role": "user", "content": "Q"}]], {})
