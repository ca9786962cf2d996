"""From rows and samples to token ids: prompts rendered, encoded and checked against the model's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from caopd.confidence import ConfidenceFormat
from caopd.errors import PromptTooLongError
from caopd.methods import Method
from caopd.prompts import student_messages, teacher_messages
from caopd.tokens import (
    Completion,
    TokenizedSample,
    decode_ids,
    encode_prompt,
    revised_completion,
    sampled_completion,
)
from caopd.types import Example, TeacherContext, TrainSample


class SampleEncoder:
    """Encodes prompts and training samples for one tokenizer; nothing is ever cut.

    Args:
        tokenizer: With a chat template.
        confidence_format: Asks for, renders and reads confidences.
        template_arguments: Passed to the chat template, for example ``{"enable_thinking": False}``.
        max_length: Longest prompt plus completion that the model takes, tokens.
        max_new_tokens: Longest completion, tokens.
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
        self.max_new_tokens = max_new_tokens

    def student_prompt(self, example: Example) -> tuple[int, ...]:
        """Return the ids of the student's prompt.

        Raises:
            PromptTooLongError: If prompt plus completion might not fit the model.
        """
        messages = student_messages(example, self.confidence_format)
        ids = encode_prompt(self.tokenizer, messages, self.template_arguments)
        self._check_length(len(ids), self.max_new_tokens, f"The prompt of example {example.id!r}")
        return ids

    def teacher_prompt(
        self, example: Example, context: TeacherContext, num_completion_tokens: int | None = None
    ) -> tuple[int, ...]:
        """Return the ids of the teacher's prompt.

        Args:
            example: The row.
            context: What the teacher sees beyond the question.
            num_completion_tokens: Length of the completion that follows; by default the longest possible.

        Raises:
            PromptTooLongError: If prompt plus completion do not fit the model.
        """
        messages = teacher_messages(example, context, self.confidence_format)
        ids = encode_prompt(self.tokenizer, messages, self.template_arguments)
        follows = self.max_new_tokens if num_completion_tokens is None else num_completion_tokens
        self._check_length(len(ids), follows, f"The teacher's prompt ({context.kind}) of example {example.id!r}")
        return ids

    def encode(self, sample: TrainSample) -> TokenizedSample:
        """Encode one training sample; its completion is revised if the sample states a confidence.

        Raises:
            PromptTooLongError: If a prompt with its completion does not fit the model.
        """
        completion = self._completion(sample)
        student = self.student_prompt(sample.example)
        if sample.context is None:
            teacher = student
        else:
            teacher = self.teacher_prompt(sample.example, sample.context, len(completion.token_ids))
        return TokenizedSample(student, teacher, completion, sample.weight, self._copies_context(sample))

    def check(self, examples: Sequence[Example], method: Method) -> None:
        """Check every row before the first rollout: usable by the method, prompt and known context fit the model.

        Raises:
            DataError: If the method cannot use a row.
            PromptTooLongError: If a prompt or a context would have to be cut.
        """
        for example in examples:
            method.check_example(example)
            self.student_prompt(example)
            context = method.known_context(example)
            if context is not None:
                self.teacher_prompt(example, context)

    def _completion(self, sample: TrainSample) -> Completion:
        if sample.confidence is None:
            return sampled_completion(sample.rollout, lambda ids: decode_ids(self.tokenizer, ids))
        return revised_completion(sample.rollout, sample.confidence, self.confidence_format, self.tokenizer)

    def _copies_context(self, sample: TrainSample) -> bool:
        stated = sample.confidence if sample.confidence is not None else sample.rollout.reading.value
        if sample.context is None or sample.context.confidence is None or stated is None:
            return False
        return round(stated, 2) == round(sample.context.confidence, 2)

    def _check_length(self, num_prompt_tokens: int, num_completion_tokens: int, what: str) -> None:
        total = num_prompt_tokens + num_completion_tokens
        if total > self.max_length:
            raise PromptTooLongError(
                f"{what} has {num_prompt_tokens} tokens; with a completion of {num_completion_tokens} tokens that "
                f"makes {total}, but the model takes {self.max_length}. Nothing is cut. Lower "
                "`data.sampling.max_new_tokens`, shorten or filter such rows in the task, or choose a model with a "
                "longer context."
            )
