"""Verifier of multiple-choice answers."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from caopd.errors import DataError
from caopd.reading.quoting import Quotations
from caopd.reading.tags import last_element
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.base import Verifier

_MARKUP = re.compile(r"<!--.{0,200}?-->|</?[A-Za-z]{1,10}>", re.DOTALL)
_DRESS = r"""(?:[^\w\\\0-\x08\x0e-\x1f\u202a-\u202e\u2066-\u2069?!~\u00ac\u2260\u00d7\u2717\u2718\u274c/&+%]
    |_|\\[A-Za-z]{1,12}\s?\{|\\[^\w\s])"""
_LEAD = r"""(?ai:i\s(?:would\s)?(?:choose|pick|select)\b|it(?:\sis|['\u2019]s)|definitely|clearly|certainly
    |(?:(?:the|my)\s)?(?:(?:final|correct|right|best)\s)?(?:answer|option|choice|letter)(?:\sis\b)?)"""
_CHOICE = re.compile(
    rf"""{_DRESS}{{0,16}}(?:{_LEAD}{_DRESS}{{1,16}}){{0,2}}(?P<letter>[A-Za-z])(?![^\W_]|[-\u2010\u2011'\u2019][^\W_])
    (?P<dress>{_DRESS}*+)(?P<rest>.*)""",
    re.VERBOSE | re.DOTALL,
)
_BOX = re.compile(r"\\boxed\s?\{(?:[^{}]|\{[^{}]*\})*+\}")
_OPTION_BEGINS = re.compile(r"[^\W_]")
_NO_OPTION = re.compile(
    r"""[A-Za-z]\s*(?:\Z|[)\].,:;/&|]|(?:or|and)\b)          # another letter
    | (?ai:or|and|nor|vs|then|but|not|if|unless)\b           # not the last word
    | (?ai:is|isn|are|was|would|could|should|might|may|can|cannot|seems?|looks?)\b""",
    re.VERBOSE,
)
_SAID_RIGHT = re.compile(
    r"""(?ai:is\s(?:(?:the|my)\s)?(?:(?:most\slikely|better|only|correct|right|best|final)\s)?
    (?:correct|right|best|true|answer|choice|option)\b|because\b|since\b)
    | not\s[A-Za-z]\W*\Z""",
    re.VERBOSE,
)
_RESTATES = re.compile(r"\s*[*_`]*[:.)\]\uff1a\uff09]")
_LETTER = re.compile(r"(?<![^\W_])[A-Z](?![^\W_])")
_LETTER_ALONE = re.compile(r"(?<!\S)(?<![\d}]\s)[A-Z](?!\S)")
"""Matches a letter between spaces that is no unit: neither ``CC(=O)O`` nor ``7.0 J`` holds one."""
_DASH = re.compile(r"[*_`]*\s+[\u2013\u2014-]\s+[*_`]*")
_ANOTHER = re.compile(r"(?:\b(?ai:or|and)\s|[,;/&\n])[\s*_`(\[]{0,8}[A-Za-z]\s?[):.]")
_DENIED = re.compile(
    r"""(?ai:(?:(?:this|that|it)(?:\sis|['\u2019]s)\s)?(?:clearly\s|definitely\s)?(?:incorrect|wrong)
    (?:\s(?:answer|option|choice))?)(?:\W*\Z|[.,;:!(\u2013\u2014\n]|\s(?:-|(?ai:because|since|as)\b))""",
    re.VERBOSE,
)
_NO = re.compile(r"(?ai:no|false)\W*\Z")
_REVISED = re.compile(
    r"""(?:\A|[.,;:!?(\n\u2013\u2014-])\W{0,4}(?ai:actually|wait|rather|sorry|hmm|oops|correction|instead|no(?=[,.!;])|i\smean
    |make\s(?:that|it)|scratch\sthat|on\ssecond\sthought)\b""",
    re.VERBOSE,
)
_OTHER_LETTER = re.compile(r"(?<![^\W_])(?:(?!I\s[a-z])[A-Z](?![^\W_])|[a-z]\W*\Z)")
_JUDGED = re.compile(
    rf"{_DRESS}{{0,8}}([A-Za-z])[):.\s*]{{1,6}}(?:(?P<yes>(?ai:yes|true|correct|right))|(?ai:no|false|incorrect|wrong))\W*",
    re.VERBOSE,
)
_ARTICLES = "AI"


@dataclass(frozen=True)
class MultipleChoice(Verifier):
    r"""The answer is the letter in the last ``<answer>...</answer>``.

    Read as B, in upper or lower case, are: the letter alone, with any marks around it (``(B)``, ``**B**``, ``B.``,
    ``$\boxed{B}$``), after words that announce it (``Option B``, ``The correct answer is B``), with the option restated
    after it (``B: text``,
    ``B) text``, ``B - text``, ``B Text``) or a reason (``B because ...``), and, where each option is judged on a line
    of its own, the only one that is right (``A: no``, ``B: yes``).

    Anything else is MALFORMED. An article, a pronoun or a word is no letter (``A dog``, ``I think``, ``i.e.``), several
    letters are no answer (``A, B``, ``A) or B)``, ``A. B.``), and neither is a letter that is asked for (``B?``),
    denied (``Not B``, ``B: incorrect``, ``B is wrong, so C``), taken back (``A. Actually B``), or outside ``options``.

    A thought (:mod:`caopd.reading.thinking`) holds no answer. The last *opening* tag decides
    (:func:`caopd.reading.tags.last_element`): when it is not closed, the answer is MALFORMED, whatever came before it.
    Without a tag, the last ``\boxed{B}`` is the answer, with the outcome OTHER_FORM; without a box it is MISSING: which
    letter of a text without either is the answer is a guess.

    Attributes:
        options: The letters that can be answers.

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
        text = said(text)
        element = last_element(text, "answer")
        if element is None:
            content, outcome = _boxed(text), AnswerOutcome.OTHER_FORM
            if content is None:
                return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MISSING)
        else:
            content = text[slice(*element.content)] if element.is_closed else ""
            outcome = AnswerOutcome.PARSED
        letter = self._letter(content)
        if letter is None:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MALFORMED)
        return Verdict(correct=letter == wanted, answer=letter, outcome=outcome)

    def _letter(self, content: str) -> str | None:
        content = _MARKUP.sub("", content).strip()
        letter = _judged_right(content) or _chosen(content)
        return letter if letter is not None and letter in self.options else None


def _boxed(text: str) -> str | None:
    """Return the last box of a text that is not quoted."""
    boxes = list(_BOX.finditer(text))
    quotations = Quotations(text) if boxes else None
    return next((box[0] for box in reversed(boxes) if quotations is None or box.start() not in quotations), None)


def _chosen(content: str) -> str | None:
    """Return the letter that ``content`` begins with, unless what follows makes another thing of it."""
    found = _CHOICE.match(content)
    if found is None:
        return None
    letter, dress, rest = found["letter"], found["dress"], found["rest"].rstrip()
    if _is_denied(dress, rest) or _is_revised(rest):
        return None
    if rest in ("", "!") or _SAID_RIGHT.match(rest):
        return letter.upper()
    if not _OPTION_BEGINS.match(rest) or _NO_OPTION.match(rest) or _ANOTHER.search(rest) or rest.endswith("?"):
        return None
    if not _RESTATES.match(dress):  # after a space, a comma or a dash alone, it may be a word, or one letter of several
        is_word = letter.islower() or (not dress.strip(" \t") and (letter in _ARTICLES or rest[0].islower()))
        other = _LETTER_ALONE if _DASH.fullmatch(dress) else _LETTER
        if is_word or "=" in dress or other.search(rest):
            return None
    return letter.upper()


def _is_denied(dress: str, rest: str) -> bool:
    """Return whether a letter is judged to be wrong; ``B. No`` is an option of a question for yes or no."""
    return bool(_DENIED.match(rest) or (_NO.match(rest) and (":" in dress or rest[0].islower())))


def _is_revised(rest: str) -> bool:
    """Return whether a letter is taken back for another one."""
    revision = _REVISED.search(rest)
    return revision is not None and _OTHER_LETTER.search(rest, revision.end()) is not None


def _judged_right(content: str) -> str | None:
    """Return the only option that is said to be right, where each line judges one option."""
    lines = [line for line in content.splitlines() if line.strip()]
    judged = [_JUDGED.fullmatch(line) for line in lines]
    right = [found[1].upper() for found in judged if found is not None and found["yes"]]
    return right[0] if len(lines) > 1 and len(right) == 1 and None not in judged else None
