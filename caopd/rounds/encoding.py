"""Turns rows and training samples into token ids: renders and encodes prompts, and checks their length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from caopd.confidence import ConfidenceFormat
from caopd.errors import DataError, ModelError, PromptTooLongError, user_code
from caopd.methods import Method
from caopd.prompts import student_messages, teacher_messages
from caopd.rollouts.decoding import decode_ids
from caopd.rounds.filling import TokenizedSample
from caopd.rounds.samples import train_samples
from caopd.rounds.splice import Completion, revised_completion, sampled_completion, written_completion
from caopd.types import (
    Example,
    Message,
    Response,
    Signal,
    TeacherContext,
    TrainSample,
    VerifiedGroup,
    strip_segment,
)

_OF_TEMPLATES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What a chat template may raise, which computes as Python does."""
_EMPTY_SOLUTION = TeacherContext("solution", "", 1.0, empirical=True)


class SampleEncoder:
    """Encodes prompts and training samples for one tokenizer; nothing is ever cut.

    Args:
        tokenizer: A tokenizer with a chat template.
        confidence_format: Asks for, writes and reads confidences.
        template_arguments: Arguments of the chat template, for example ``{"enable_thinking": False}``.
        max_length: Length, in tokens, of the longest prompt plus completion that the model takes.
        max_new_tokens: Length, in tokens, of the longest sampled completion.

    Attributes:
        longest_completion: Length, in tokens, of the longest completion that is trained on.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        confidence_format: ConfidenceFormat,
        template_arguments: Mapping[str, object],
        max_length: int,
        max_new_tokens: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.confidence_format = confidence_format
        self.template_arguments = template_arguments
        self.max_length = max_length
        segment = confidence_format.render(1.0)
        # A revision may append a confidence segment and an end of sequence to the longest completion.
        self.longest_completion = max_new_tokens + len(tokenizer("\n" + segment)["input_ids"]) + 1

    def student_prompts(self, examples: Sequence[Example]) -> list[tuple[int, ...]]:
        """Return the ids of the student's prompts; a template that writes the date gives others at another time.

        Args:
            examples: The rows of the task.

        Raises:
            PromptTooLongError: If a prompt with the longest completion does not fit the model.
        """
        prompts = self._rendered(examples)
        self._check_prompts(examples, prompts, [self.longest_completion] * len(prompts))
        return prompts

    def unsampled(self, examples: Sequence[Example]) -> list[VerifiedGroup]:
        """Return a group without rollouts for every row, for a method that trains on written texts.

        Args:
            examples: The rows of the task.
        """
        pairs = zip(examples, self._rendered(examples), strict=True)
        return [VerifiedGroup(example, prompt_ids, rollouts=(), mu_hats=()) for example, prompt_ids in pairs]

    def teacher_prompts(
        self, pairs: Sequence[tuple[Example, TeacherContext]], completion_lengths: Sequence[int] | None = None
    ) -> list[tuple[int, ...]]:
        """Return the ids of the teacher's prompts.

        Args:
            pairs: Rows, and what the teacher sees beyond their questions.
            completion_lengths: Lengths of the completions that follow, in tokens; by default the longest possible.

        Raises:
            PromptTooLongError: If a prompt with its completion does not fit the model.
        """
        conversations = []
        for example, context in pairs:
            with user_code(self.confidence_format, f"the teacher's prompt of example {example.id!r}"):
                shown = self._unambiguous(context)
                conversations.append(teacher_messages(example, shown, self.confidence_format))
        prompts = encode_prompts(self.tokenizer, conversations, self.template_arguments)
        lengths = completion_lengths or [self.longest_completion] * len(prompts)
        for (example, context), ids, length in zip(pairs, prompts, lengths, strict=True):
            self._check_length(len(ids), length, f"The teacher's prompt ({context.kind}) of example {example.id!r}")
        return prompts

    def encode(self, samples: Sequence[TrainSample], prompts: Sequence[tuple[int, ...]]) -> list[TokenizedSample]:
        """Encode training samples; a completion is revised if its sample states a confidence.

        Args:
            samples: The training samples, of any prompts.
            prompts: For each sample, the ids of the student's prompt from which its rollout was sampled.

        Raises:
            PromptTooLongError: If a prompt with its completion does not fit the model.
        """
        completions = []
        for sample in samples:
            with user_code(self.confidence_format, f"a completion of example {sample.example.id!r}"):
                completions.append(self._completion(sample))
        completion_lengths = [len(completion.token_ids) for completion in completions]
        students = list(prompts)
        self._check_prompts([sample.example for sample in samples], students, completion_lengths)
        taught = [index for index, sample in enumerate(samples) if sample.context is not None]
        teachers = list(students)
        teacher_prompts = self.teacher_prompts(
            [(samples[index].example, context) for index in taught if (context := samples[index].context)],
            [completion_lengths[index] for index in taught],
        )
        for index, prompt in zip(taught, teacher_prompts, strict=True):
            teachers[index] = prompt
            if samples[index].student_sees_context:
                students[index] = prompt
        return [
            TokenizedSample(
                student,
                teacher,
                completion,
                _token_weights(sample, completion),
                _copies_context(sample, completion),
                sample.advantage,
            )
            for student, teacher, completion, sample in zip(students, teachers, completions, samples, strict=True)
        ]

    def check(self, examples: Sequence[Example], method: Method) -> None:
        """Check, before the first rollout, that the method can use every row, and that prompts and known contexts fit.

        Raises:
            DataError: If the method cannot use a row.
            PromptTooLongError: If a prompt or a context would have to be cut.
        """
        for example in examples:
            with user_code(method, f"example {example.id!r}"):
                method.check_example(example)
        if method.min_rollouts == 0:  # all that will be trained on is known already
            pairs = [(s, group.prompt_ids) for group in self.unsampled(examples) for s in train_samples(method, group)]
            self.encode([sample for sample, _ in pairs], [prompt for _, prompt in pairs])
            return
        self.student_prompts(examples)
        if method.signal is not Signal.CONTEXT or not method.privileged:
            return
        contexts = [(example, _known_context(method, example)) for example in examples]
        self.teacher_prompts([(example, context) for example, context in contexts if context is not None])
        # The rollout that a teacher will be shown is at most as long as the longest completion.
        unknown = [(example, _EMPTY_SOLUTION) for example, context in contexts if context is None]
        self.teacher_prompts(unknown, [2 * self.longest_completion] * len(unknown))

    def _unambiguous(self, context: TeacherContext) -> TeacherContext:
        """Return the context without other confidences than the empirical one, as a solution that revises itself has.

        The teacher is asked for exactly one value, and would otherwise read two.
        """
        text = context.response
        if text is None or not context.empirical:
            return context
        while (reading := self.confidence_format.parse(text)).span is not None:
            shorter = strip_segment(text, reading)
            if len(shorter) >= len(text):
                break
            text = shorter
        return context if text == context.response else replace(context, response=text.strip())

    def _rendered(self, examples: Sequence[Example]) -> list[tuple[int, ...]]:
        conversations = []
        for example in examples:
            with user_code(self.confidence_format, f"the prompt of example {example.id!r}"):
                conversations.append(student_messages(example, self.confidence_format))
        return encode_prompts(self.tokenizer, conversations, self.template_arguments)

    def _check_prompts(
        self, examples: Sequence[Example], prompts: Sequence[tuple[int, ...]], completion_lengths: Sequence[int]
    ) -> None:
        for example, ids, length in zip(examples, prompts, completion_lengths, strict=True):
            self._check_length(len(ids), length, f"The prompt of example {example.id!r}")

    def _completion(self, sample: TrainSample) -> Completion:
        if isinstance(sample.rollout, Response):
            _check_characters(sample.rollout.text)
            return written_completion(sample.rollout.text, sample.confidence, self.confidence_format, self.tokenizer)
        if sample.confidence is None:
            return sampled_completion(sample.rollout, lambda ids: decode_ids(self.tokenizer, ids))
        return revised_completion(sample.rollout, sample.confidence, self.confidence_format, self.tokenizer)

    def _check_length(self, num_prompt_tokens: int, num_completion_tokens: int, what: str) -> None:
        total = num_prompt_tokens + num_completion_tokens
        if total > self.max_length:
            raise PromptTooLongError(
                f"{what} has {num_prompt_tokens} tokens; with a completion of {num_completion_tokens} tokens that "
                f"makes {total}, but the model takes {self.max_length}. Nothing is cut. Lower "
                "`max_new_tokens` (`data.sampling` for training, `data.evaluation` for held-out prompts), shorten "
                "or leave out such rows in the task, or choose a model with a longer context."
            )


def _known_context(method: Method, example: Example) -> TeacherContext | None:
    with user_code(method, f"example {example.id!r}"):
        return method.known_context(example)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    template_arguments: Mapping[str, object],
) -> list[tuple[int, ...]]:
    """Render conversations with the tokenizer's chat template and return the ids of the prompts.

    Args:
        tokenizer: A tokenizer with a chat template.
        conversations: The chat messages of each prompt.
        template_arguments: Arguments of the template, for example ``{"enable_thinking": False}``.

    Raises:
        ModelError: If the template cannot be read, or refuses the messages.
        DataError: If a prompt holds half of a surrogate pair.
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
    except _OF_TEMPLATES as error:
        roles = sorted({message["role"] for messages in conversations for message in messages})
        raise ModelError(
            f"Expected the chat template of {tokenizer.name_or_path!r} to render messages of the roles "
            f"{', '.join(roles)}, but it does not: {error}. Correct its `chat_template`, or choose a task without a "
            "role that the model does not know."
        ) from error
    for text in texts:
        _check_characters(text)
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
    return [tuple(ids) for ids in encoded["input_ids"]]


def _check_characters(text: str) -> None:
    """Raise where a text holds half of a surrogate pair, which a task of one's own may give and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 30, 0) : error.end + 30]
        raise DataError(
            f"Expected prompts and demonstrations of characters, but got half of a surrogate pair: {around!a}. Correct "
            "the rows of the task."
        ) from error


def _token_weights(sample: TrainSample, completion: Completion) -> tuple[float, ...]:
    """Return the weight of every token: the sample's, times that of the body outside the confidence segment."""
    body_weight = sample.weight * sample.body_weight
    return tuple(sample.weight if stated else body_weight for stated in completion.confidence_mask)


def _copies_context(sample: TrainSample, completion: Completion) -> bool:
    """Return whether the completion states the confidence that the teacher's context states."""
    if sample.context is None or sample.context.confidence is None or not any(completion.confidence_mask):
        return False
    stated = sample.confidence
    if stated is None and not isinstance(sample.rollout, Response):
        stated = sample.rollout.reading.value
    if stated is None:
        return False
    return round(stated, 2) == round(sample.context.confidence, 2)
