"""The stated confidence: the sentence that asks for it, how it is written, and how it is read.

No other module holds the string ``Confidence:``. A format is a small class that satisfies :class:`ConfidenceFormat`:
:class:`InlineConfidence` is the paper's line (arXiv 2604.16830, section 3), :class:`TagConfidence` a tag,
:class:`RLCRConfidence` the last of four tags.

Rules of all parsers; a *segment* is the part of a text that states a confidence:

- What stands in a thought (:mod:`caopd.reading.thinking`) or in a quotation (:mod:`caopd.reading.quoting`) is not
  read.
- The *last* segment of a text counts, readable or not; earlier ones are part of the answer.
- Missing is not zero: a segment that is absent, unreadable or out of range has ``value`` None. The last two
  keep their ``span``, so that a revision can overwrite them.
- What a person would not be sure of has no value: a range, a choice, a question, a condition.
- Work is bounded by construction: some passes over the text, and a bounded look around each candidate. No text can
  stall or crash it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from caopd.errors import ConfigError
from caopd.reading.lines import ConfidenceLines, other_form, segment_end
from caopd.reading.mentions import Mentions, leads_its_line
from caopd.reading.tags import last_element
from caopd.reading.thinking import ends_in_thought, said
from caopd.reading.values import MAX_VALUE, read_value
from caopd.types import ConfidenceOutcome, ConfidenceReading


class ConfidenceFormat(Protocol):
    """How a completion states its confidence: asked for, rendered and read by one object."""

    @property
    def instruction(self) -> str:
        """The sentence that asks for a confidence; prompts append it to the question."""
        ...

    @property
    def field_name(self) -> str:
        """How the note in a teacher's prompt names the field, for example ``Confidence:``."""
        ...

    def render(self, confidence: float) -> str:
        """Return the segment that states ``confidence``, rounded to two decimals.

        Raises:
            ConfigError: ``confidence`` is outside [0, 1] or NaN.
        """
        ...

    def parse(self, text: str) -> ConfidenceReading:
        """Read the last confidence segment of ``text``. Never raises, whatever the text."""
        ...


@dataclass(frozen=True)
class InlineConfidence(ConfidenceFormat):
    r"""The line ``Confidence: 0.85``.

    The word counts in any case, as a word of its own with a colon after it. A word that leads its line (after
    markdown, a list's mark, LaTeX) makes a segment whatever follows; within a line, only a number makes it one: "with
    confidence: the answer is B" states nothing, and neither do ``Overconfidence: 0.3``, ``Lack of confidence: 0.3``,
    ``confidence: 95% CI``, a quotation, a tool's input, the JSON key ``"confidence": 0.3``, or one of several options'
    confidences. The segment runs to the end of its line, or to a tag or the words ``Answer:``, ``the answer is`` on
    that line: an answer after the value stays in the text.

    Read as a value are ``0.85``, ``.85``, ``85%``, ``8.5/10``, ``8.5 out of 10`` (and out of any other number), with
    markdown around it and a remark after it, as in ``**0.85** (high)``. Read as a value, with the outcome OTHER_FORM,
    are ``high (0.85)``, ``0,85``, ``p = 0.85``, a value in LaTeX, quotes or brackets, ``Confidence level: 0.85``, a
    value alone on the next line, the row ``| Confidence | 0.85 |``, ``Confidence = 0.85`` and ``Confidence - 0.85``.

    MALFORMED are words, a range (``0.8-0.9``), another value beside the first (``0.8 or 0.9``) or put in its place
    (``0.8 (wait, 0.4)``), a bound (``> 0.8``, ``0.8 or higher``), a question (``0.8?``), an exponent (``1e-3``), digits
    of other scripts, and ``0.`` at the end of the text, which was cut. A bare ``85`` is OUT_OF_RANGE: it is not guessed
    to be a percentage, unless ``percent_without_sign`` says so.

    A confidence that is only mentioned on the way to the answer, as in a plan, is no segment
    (:class:`caopd.reading.mentions.Mentions`).

    Attributes:
        percent_without_sign: Read a number above 1 without a scale as a percentage: ``95`` is 0.95, while ``1`` is
            1.00. For models that state percentages and leave out the sign.
        instruction: The sentence that asks for the line. A model that has learnt to write it needs few words, and a
            small one is faster with few.

    Examples:
        >>> form = InlineConfidence()
        >>> form.render(0.375)
        'Confidence: 0.38'
        >>> form.parse("B\nConfidence: 0.85")
        ConfidenceReading(value=0.85, span=(2, 18), outcome=<ConfidenceOutcome.DECIMAL: 'decimal'>)
        >>> form.parse("**Confidence:** 8.5/10").value
        0.85
        >>> form.parse("Confidence: 0.85, or rather\nConfidence: high").outcome
        <ConfidenceOutcome.MALFORMED: 'malformed'>
    """

    percent_without_sign: bool = False
    instruction: str = (
        "After your answer, state how confident you are that it is correct, on a last line of its own: "
        "`Confidence: p`, with p between 0.00 and 1.00."
    )

    def __post_init__(self) -> None:
        _check_instruction(self)

    @property
    def field_name(self) -> str:
        """The name of the field in a teacher's note: ``Confidence:``."""
        return "Confidence:"

    def render(self, confidence: float) -> str:
        """Return the line that states ``confidence``.

        Raises:
            ConfigError: ``confidence`` is outside [0, 1] or NaN.
        """
        return f"Confidence: {_two_decimals(confidence)}"

    def parse(self, text: str) -> ConfidenceReading:
        """Read the last ``Confidence:`` segment of ``text``."""
        return ConfidenceLines(said(text), self.percent_without_sign).last() or _nothing(text)


@dataclass(frozen=True)
class TagConfidence(ConfidenceFormat):
    """The tag ``<confidence>0.85</confidence>``.

    The last opening tag counts, unless nothing stands after it and another one before it: then it closes that one.
    White space within a tag does not matter. A segment that is not closed is MALFORMED and ends with its line. Values
    are read as :class:`InlineConfidence` reads them.

    Attributes:
        percent_without_sign: As of :class:`InlineConfidence`.
        instruction: The sentence that asks for the tag.

    Examples:
        >>> form = TagConfidence()
        >>> form.render(1.0)
        '<confidence>1.00</confidence>'
        >>> form.parse("B <confidence> 85% </confidence>").value
        0.85
        >>> TagConfidence(percent_without_sign=True).parse("B <confidence>95.</confidence>").value
        0.95
        >>> form.parse("B <confidence>0.85")
        ConfidenceReading(value=None, span=(2, 18), outcome=<ConfidenceOutcome.MALFORMED: 'malformed'>)
    """

    percent_without_sign: bool = False
    instruction: str = (
        "After your answer, state how confident you are that it is correct, on a last line of its own: "
        "`<confidence>p</confidence>`, with p between 0.00 and 1.00."
    )

    def __post_init__(self) -> None:
        _check_instruction(self)

    @property
    def field_name(self) -> str:
        """The name of the field in a teacher's note: ``<confidence>``."""
        return "<confidence>"

    def render(self, confidence: float) -> str:
        """Return the tag that states ``confidence``.

        Raises:
            ConfigError: ``confidence`` is outside [0, 1] or NaN.
        """
        return f"<confidence>{_two_decimals(confidence)}</confidence>"

    def parse(self, text: str) -> ConfidenceReading:
        """Read the last ``<confidence>`` segment of ``text``."""
        heard = said(text)
        element = last_element(heard, "confidence")
        if element is None:
            return _nothing(text)
        start, end = element.content
        if Mentions(heard).is_mentioned(element.start, element.end, leads_its_line(heard, element.start)):
            return _nothing(text)
        if not element.is_closed:
            span = (element.start, segment_end(heard, start))
            return ConfidenceReading(value=None, span=span, outcome=ConfidenceOutcome.MALFORMED)
        content = heard[start : min(end, start + MAX_VALUE)]
        stated = read_value(content, percent_without_sign=self.percent_without_sign)
        outcome = stated.outcome if element.is_plain else other_form(stated.outcome)
        return ConfidenceReading(stated.value, (element.start, element.end), outcome)


@dataclass(frozen=True)
class RLCRConfidence(TagConfidence):
    """The form of RLCR (arXiv 2507.16806): reasoning, answer, analysis of the uncertainty, confidence, each in a tag.

    Written and read as :class:`TagConfidence`; only what is asked for differs. The first tag is ``<reasoning>``, as in
    the prompts of this package's tasks, where the paper has ``<think>``, which some chat templates take for themselves.

    Attributes:
        instruction: Sentences that ask for the four tags.

    Example:
        >>> RLCRConfidence().parse("<answer>B</answer><analysis>C?</analysis><confidence>0.6</confidence>").value
        0.6
    """

    instruction: str = (
        "Respond in four parts: your reasoning in `<reasoning>...</reasoning>`, your final answer in "
        "`<answer>...</answer>`, an analysis of what speaks for and against that answer in "
        "`<analysis>...</analysis>`, and last how confident you are that it is correct, in "
        "`<confidence>p</confidence>`, with p between 0.00 and 1.00."
    )


def _check_instruction(form: ConfidenceFormat) -> None:
    if not form.instruction.strip():
        raise ConfigError(
            f"Expected `instruction` of {type(form).__name__} to ask for a confidence, such as 'State your "
            f"confidence.', but got {form.instruction!r}."
        )


def _two_decimals(confidence: float) -> str:
    if not 0.0 <= confidence <= 1.0:
        raise ConfigError(f"Expected a confidence to render in [0, 1], but got {confidence!r}.")
    return f"{confidence + 0.0:.2f}"  # + 0.0 turns -0.0 into 0.0


def _nothing(text: str) -> ConfidenceReading:
    outcome = ConfidenceOutcome.UNFINISHED if ends_in_thought(text) else ConfidenceOutcome.MISSING
    return ConfidenceReading(value=None, span=None, outcome=outcome)
