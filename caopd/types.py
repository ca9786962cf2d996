"""The frozen dataclasses that carry data between the packages of caopd. No torch here.

Order of travel: ``Example`` -> ``Rollout`` -> ``VerifiedRollout`` -> ``VerifiedGroup`` -> ``TrainSample``
(the tensors that follow live in :mod:`caopd.rounds.batches`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypedDict

GREEDY, SAMPLED = "greedy", "sampled"
"""Names of the two events that a stated confidence can be judged by: that the greedy completion is right, or that one
is which is sampled as training rollouts are. mu_hat estimates the second."""


class Message(TypedDict):
    """One chat message, as chat templates take it."""

    role: str
    content: str


class StopReason(StrEnum):
    """Why a completion ended."""

    EOS = "eos"
    LENGTH = "length"


class Form(StrEnum):
    """In which form a completion says something: tables tell these three apart."""

    ASKED = "asked"
    """As the prompt asks for it."""
    OTHER = "other"
    """In another form, which is read all the same."""
    NONE = "none"
    """Not at all, or so that it cannot be read."""


class AnswerOutcome(StrEnum):
    """Whether a verifier could read a completion's answer."""

    PARSED = "parsed"
    """An answer in the form asked for."""
    OTHER_FORM = "other_form"
    """An answer that a person reads, written in another way than asked for: a call in JSON, a letter in a box."""
    MISSING = "missing"
    """No answer at all."""
    MALFORMED = "malformed"
    """An answer that cannot be read, or is several."""

    @property
    def form(self) -> Form:
        """In which form there is an answer."""
        if self is AnswerOutcome.PARSED:
            return Form.ASKED
        return Form.OTHER if self is AnswerOutcome.OTHER_FORM else Form.NONE


class ConfidenceOutcome(StrEnum):
    """How a completion states its confidence, or why none could be read."""

    DECIMAL = "decimal"
    """A number in [0, 1], in the form asked for."""
    PERCENT = "percent"
    """``85%``, read as 0.85."""
    OUT_OF_TEN = "out_of_ten"
    """``8.5/10``, read as 0.85."""
    OTHER_FORM = "other_form"
    """A number that a person reads, written in another way than asked for: ``high (0.85)``, ``0,85``, ``17/20``."""
    MISSING = "missing"
    """No confidence segment at all."""
    UNFINISHED = "unfinished"
    """No confidence segment, because the completion ends within its thinking."""
    MALFORMED = "malformed"
    """A segment without a number in a known form, with several, or with one that was cut."""
    OUT_OF_RANGE = "out_of_range"
    """A number that no known form maps into [0, 1]."""

    @property
    def form(self) -> Form:
        """In which form a confidence is stated."""
        if self is ConfidenceOutcome.DECIMAL:
            return Form.ASKED
        others = (ConfidenceOutcome.PERCENT, ConfidenceOutcome.OUT_OF_TEN, ConfidenceOutcome.OTHER_FORM)
        return Form.OTHER if self in others else Form.NONE


class Signal(StrEnum):
    """What the training samples of a method are trained on; every loss is for one of these."""

    CONTEXT = "context"
    """A teacher that sees more than the student."""
    ADVANTAGE = "advantage"
    """How much better a rollout is than the rest of its group, its *advantage*."""
    COMPLETION = "completion"
    """The completion itself, which shows the right answer."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task.

    Attributes:
        id: Stable and unique within the task; random streams are derived from it.
        question: What the user asks, without the confidence instruction.
        target: What the task's verifier compares with.
        system: System message, kept as it is.
        demonstration: A response that shows the answer, without a confidence segment; a privileged context may show it.
        category: Label, such as a subject or a difficulty; metrics can be split by it.
    """

    id: str
    question: str
    target: str
    system: str | None = None
    demonstration: str | None = None
    category: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion as the engine sampled it.

    Attributes:
        token_ids: Sampled ids, the end-of-sequence id included when ``stop_reason`` is ``EOS``.
        text: The decoded completion without special tokens.
        stop_reason: Why sampling ended.
        logprobs: Log-probability (nats) of every sampled id under the model's unscaled distribution, one per id.
        policy_version: Version of the weights that sampled it: the number of optimizer steps that they have had.
        drawn_logprobs: Log-probability (nats) of every sampled id under the distribution that it was drawn from, after
            temperature, top-p, top-k and whatever else changes it; 0 where the most probable one was taken. None where
            the engine does not say. It is compared when sampled, and not kept.
    """

    token_ids: tuple[int, ...]
    text: str
    stop_reason: StopReason
    logprobs: tuple[float, ...]
    policy_version: int
    drawn_logprobs: tuple[float, ...] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one completion.

    Attributes:
        correct: Whether the answer agrees with the target. Without a parsed answer it is False.
        answer: The answer in canonical form, in which equal answers are equal strings; None when none was parsed.
        outcome: Whether an answer was parsed.
        feedback: A sentence about what is wrong with the completion that does not give the target away; None for
            nothing to say.
    """

    correct: bool
    answer: str | None
    outcome: AnswerOutcome
    feedback: str | None = None


@dataclass(frozen=True, slots=True)
class ConfidenceReading:
    """What a confidence format read from one completion.

    Attributes:
        value: The confidence in [0, 1], or None: missing is not zero.
        span: Character range of the segment in the text, None when there is no segment.
        outcome: How the value was stated, or why there is none.
    """

    value: float | None
    span: tuple[int, int] | None
    outcome: ConfidenceOutcome


@dataclass(frozen=True, slots=True)
class VerifiedRollout:
    """A rollout with its verdict and the reading of its confidence.

    Attributes:
        rollout: The rollout.
        verdict: What the verifier says of it; None where it, or a reward, did not return in time, and was ended. Such a
            rollout is neither right nor wrong: it is left out of what is estimated, measured and trained on.
        reading: Its stated confidence.
        rewards: What it earned, by the name of the reward, before weights; None where nothing is rewarded.
        thoughts: Character ranges of its thoughts, which are no answer and state nothing.
    """

    rollout: Rollout
    verdict: Verdict | None
    reading: ConfidenceReading
    rewards: Mapping[str, float] | None = None
    thoughts: tuple[tuple[int, int], ...] = ()

    @property
    def body(self) -> str:
        """The text of the completion without its confidence segment."""
        return strip_segment(self.rollout.text, self.reading)


def strip_segment(text: str, reading: ConfidenceReading) -> str:
    """Return ``text`` without the confidence segment that ``reading`` found in it."""
    if reading.span is None:
        return text
    start, end = reading.span
    return text[:start].rstrip() + text[end:]


@dataclass(frozen=True, slots=True)
class VerifiedGroup:
    """The G rollouts of one prompt in one round.

    Attributes:
        example: The prompt's row.
        prompt_ids: Token ids of the rendered prompt that the rollouts complete, and that is trained on: a template that
            writes the date would render another one later.
        rollouts: All G rollouts, in the order of sampling.
        mu_hats: The empirical confidence of each rollout: the estimate of the student's success rate on this prompt,
            which the rollout is to state; None where it could not be estimated, or the rollout has no verdict.
    """

    example: Example
    prompt_ids: tuple[int, ...]
    rollouts: tuple[VerifiedRollout, ...]
    mu_hats: tuple[float | None, ...]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of the rollouts that have one, in their order."""
        return verdicts_of(self.rollouts)

    @property
    def judged(self) -> VerifiedGroup:
        """The group without the rollouts that have no verdict."""
        pairs = [pair for pair in zip(self.rollouts, self.mu_hats, strict=True) if pair[0].verdict is not None]
        return replace(self, rollouts=tuple(each for each, _ in pairs), mu_hats=tuple(mu_hat for _, mu_hat in pairs))


def verdicts_of(rollouts: Iterable[VerifiedRollout]) -> list[Verdict]:
    """Return the verdicts of the rollouts that have one, in their order."""
    return [verified.verdict for verified in rollouts if verified.verdict is not None]


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """What the teacher sees beyond the question, as fields; :mod:`caopd.prompts` makes text of them, once.

    Attributes:
        kind: Which of the templates in :data:`caopd.prompts.CONTEXT_TEMPLATES` shows it.
        response: The privileged response; None where there is feedback, or an empirical confidence, alone.
        confidence: The confidence that the privileged response states, None for none.
        empirical: Whether the confidence is the student's empirical one; then a note asks to output exactly it.
        feedback: What the verifier says of the completion that is trained on, None for nothing.
    """

    kind: str
    response: str | None
    confidence: float | None
    empirical: bool = False
    feedback: str | None = None

    def with_empirical_confidence(self, mu_hat: float) -> TeacherContext:
        """Return the context that states ``mu_hat`` as its confidence and asks for exactly that value."""
        return replace(self, confidence=mu_hat, empirical=True)


@dataclass(frozen=True, slots=True)
class Response:
    """A completion that was written and not sampled, such as a demonstration.

    Attributes:
        text: Its text, without a confidence segment.
    """

    text: str


@dataclass(frozen=True, slots=True)
class TrainSample:
    """A training sample: one completion, with what the method adds to it, before it becomes token ids.

    Attributes:
        example: The prompt's row.
        rollout: The completion as sampled, or a written one.
        context: What the teacher sees; None shows it the student's prompt.
        confidence: Overwrites the completion's confidence segment, or is appended to a written one; None trains on the
            completion as it is.
        weight: Weight in the loss; 0 means that the method had nothing to teach here.
        body_weight: Factor of the weight at the tokens outside the confidence segment; 0 trains at the tokens of the
            segment alone.
        advantage: How much better the rollout is than the rest of its group; None where the method does not say.
        rewards: What the rollout earned, by the name of the reward, before weights; empty where nothing is rewarded.
        student_sees_context: Whether the student, too, reads the context: it then learns to use one.
    """

    example: Example
    rollout: VerifiedRollout | Response
    context: TeacherContext | None
    confidence: float | None = None
    weight: float = 1.0
    body_weight: float = 1.0
    advantage: float | None = None
    rewards: Mapping[str, float] = field(default_factory=dict)
    student_sees_context: bool = False
