"""Verifier of multiple-choice answers in ``<answer>`` tags."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from caopd.errors import DataError
from caopd.types import AnswerOutcome, Verdict

_LAST_OPENING = re.compile(r"(?s:.*)(?ai:<answer>)")
_CLOSING = re.compile(r"(?ai:</answer>)")
_LETTER_ALONE = re.compile(r"[\s*_`(\[]*([A-Za-z])[\s*_`)\].:]*")
_LETTER_AND_TEXT = re.compile(r"[\s*_`(\[]*([A-Za-z])[*_`]*(?:[):\]]|\.(?=[\s*_`])).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    r"""The letter in the last ``<answer>...</answer>``.

    Read as B, in either case: ``B``, ``(B)``, ``B.``, ``**B**``, and with the option restated behind a
    delimiter, ``B: text``, ``B) text``, ``B. text``. Anything else is MALFORMED: an article or a word is no
    letter (``A dog``, ``i.e.``), two letters are no answer (``A, B``), nor is a letter outside ``options``.
    The last *opening* tag decides: when it is not closed, the answer is MALFORMED, whatever came before it.
    Without a tag the answer is MISSING.

    Attributes:
        options: The letters that are answers.

    Examples:
        >>> MultipleChoice().verify("<answer>\nb\n</answer>", target="B")
        Verdict(correct=True, answer='B', outcome=<AnswerOutcome.PARSED: 'parsed'>, feedback=None)
        >>> MultipleChoice().verify("<answer>A dog</answer>", target="A").outcome
        <AnswerOutcome.MALFORMED: 'malformed'>
    """

    options: str = string.ascii_uppercase

    def verify(self, text: str, target: str) -> Verdict:
        """Compare the letter in ``text`` with ``target``.

        Raises:
            DataError: ``target`` is not one of the options.
        """
        wanted = target.strip().upper()
        if len(wanted) != 1 or wanted not in self.options:
            raise DataError(
                f"Expected the target of a multiple-choice question to be one letter of {self.options}, "
                f"but got {target[:80]!r}. Correct the row's answer."
            )
        opening = _LAST_OPENING.match(text)
        if opening is None:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MISSING)
        closing = _CLOSING.search(text, opening.end())
        letter = None if closing is None else self._letter(text[opening.end() : closing.start()])
        if letter is None:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MALFORMED)
        return Verdict(correct=letter == wanted, answer=letter, outcome=AnswerOutcome.PARSED)

    def _letter(self, content: str) -> str | None:
        match = _LETTER_ALONE.fullmatch(content) or _LETTER_AND_TEXT.fullmatch(content)
        if match is None:
            return None
        letter = match[1].upper()
        return letter if letter in self.options else None
