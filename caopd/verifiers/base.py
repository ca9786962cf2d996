"""The protocol of verifiers, which judge whether a completion's answer is right."""

from __future__ import annotations

from typing import Protocol

from caopd.types import Verdict


class Verifier(Protocol):
    """Judges completions of one task: the same object serves training and evaluation."""

    def verify(self, text: str, target: str) -> Verdict:
        """Compare the answer in ``text`` with ``target``.

        Args:
            text: A completion without its confidence segment. Every text must be judged; none may raise.
            target: The example's target.

        Raises:
            DataError: ``target`` is not what this verifier compares with.
        """
        ...
