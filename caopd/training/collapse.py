"""Says, once for each kind, that a round has gone wrong in a way that no error shows: nothing is copied, or stated.

The thresholds are stated here and in docs/diagnostics.md. They are far from what a run that works shows, so that a
warning means something; less than this is seen in the curves alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from caopd.distributed import gather_in_order
from caopd.rounds.batches import TokenBatch
from caopd.rounds.round import Round
from caopd.types import StopReason

MIN_SEGMENTS, LEAST_COPYING = 20, 0.1
"""How many segments say whether a teacher copies, and the score below which it hardly does."""
MIN_ROLLOUTS, LEAST_ADHERENCE = 32, 0.05
"""How many rollouts say whether confidences are stated, and the share below which they hardly are."""
LARGEST_CUT_SHARE = 0.5
"""Share of so many rollouts above which most are cut at the limit of their length."""
MIN_STATED, LARGEST_SHARE_OF_ONE = 256, 0.995
"""How many confidences say whether they differ, and the share of the most frequent value from which they do not."""

Segment = tuple[int, ...]
"""The token ids of a confidence segment."""


class ShownSegment(NamedTuple):
    """A confidence segment that states what its teacher's context shows."""

    segment: Segment
    copied: bool
    """Whether the teacher predicts all of it."""
    alone: bool
    """Whether nothing else of its sequence is trained: its context shows the confidence and no solution."""


def shown_segments(batch: TokenBatch, predicted_T: Tensor) -> list[ShownSegment]:
    """Return the segments that state their context's confidence.

    Args:
        batch: A micro-batch of T completion tokens.
        predicted_T: Whether the teacher's most likely token is the one in the completion.
    """
    right_BC = torch.ones_like(batch.completion_mask_BC)
    right_BC[batch.completion_mask_BC] = predicted_T
    copied_B = (right_BC | ~batch.confidence_mask_BC).all(dim=1)
    shown_B = batch.copies_context_B & batch.confidence_mask_BC.any(dim=1)
    rows = zip(batch.completion_ids_BC[shown_B], batch.confidence_mask_BC[shown_B], strict=True)
    segments = [tuple(ids_C[mask_C].tolist()) for ids_C, mask_C in rows]
    alone = batch.confidence_alone_B[shown_B].tolist()
    return [ShownSegment(*each) for each in zip(segments, copied_B[shown_B].tolist(), alone, strict=True)]


def copying_score(counts: Mapping[Segment, tuple[int, int]]) -> float:
    """Return how much of what a context-blind teacher must miss is copied: 1 for all of it, 0 for a blind teacher.

    With r_v the share of segments of value v that are copied, and K values, it is (mean of r_v - 1/K) / (1 - 1/K). A
    teacher that does not read its context predicts v with some probability q_v whatever the context says; the q_v sum
    to at most 1, so the expected mean of r_v is at most 1/K, however often each value occurs. With one value it is r.

    Args:
        counts: How many segments there are of each value, and how many of these are copied.
    """
    mean = fmean(copied / size for size, copied in counts.values())
    chance = 1 / len(counts) if len(counts) > 1 else 0.0
    return (mean - chance) / (1 - chance)


class CopyWatch:
    """Counts, over a round, which confidences of its context the teacher copies, and warns once if it hardly does."""

    def __init__(self) -> None:
        self._segments: list[ShownSegment] = []
        self._has_warned = False

    def add(self, segments: Sequence[ShownSegment]) -> None:
        """Count some of the round's segments."""
        self._segments += segments

    def end_round(self, number: int) -> None:
        """Look at the round's segments, of all processes, and forget them; a collective operation.

        Args:
            number: Number of the round.
        """
        segments, self._segments = gather_in_order(self._segments), []
        sizes = Counter(shown.segment for shown in segments)
        copied = Counter(shown.segment for shown in segments if shown.copied)
        if self._has_warned or len(segments) < MIN_SEGMENTS:
            return
        score = copying_score({each: (size, copied[each]) for each, size in sizes.items()})
        if score < LEAST_COPYING:
            self._has_warned = True
            rank_zero_warn(
                f"The teacher does not copy the confidence that its context states: in round {number} it would write "
                f"{sum(copied.values())} of {len(segments)} as they are, of {len(sizes)} different ones, which is no "
                f"more than a teacher that does not read them could (score {score:.2f}; 1 copies all). The student is "
                "taught the teacher's own confidence instead. Lower `model.teacher.rate` or the learning rate if "
                "`train/teacher_copy_accuracy` has fallen; else begin with SFT and its `context_share`, or take a "
                "larger model."
            )


class FormatWatch:
    """Looks at a round's completions: warns once if they hardly state anything, are mostly cut, or state one value."""

    def __init__(self) -> None:
        self._has_warned: set[str] = set()

    def look(self, made: Round) -> None:
        """Look at a round, which is the same in every process.

        Args:
            made: The round before it is trained on.
        """
        readings = [verified.reading.value for group in made.groups for verified in group.rollouts]
        stated = [value for value in readings if value is not None]
        if len(readings) >= MIN_ROLLOUTS and len(stated) < LEAST_ADHERENCE * len(readings):
            self._warn(
                "silent",
                f"Confidences are hardly stated: {len(stated)} of the {len(readings)} completions of round "
                f"{made.number} state one that can be read, so none is learned from what the student says, nor "
                "measured. Look at the completions (`val/completions`, `rollouts/`): where they are cut, raise "
                "`data.sampling.max_new_tokens`; where they state it otherwise, change `data.confidence`; where they "
                "state none, begin with SFT; where they did before, lower the learning rate, or set "
                "`model.loss.confidence` to ForwardKL.",
            )
        rollouts = [verified.rollout for group in made.groups for verified in group.rollouts]
        num_cut = sum(rollout.stop_reason is StopReason.LENGTH for rollout in rollouts)
        if len(rollouts) >= MIN_ROLLOUTS and num_cut > LARGEST_CUT_SHARE * len(rollouts):
            self._warn(
                "cut",
                f"Most completions are cut: {num_cut} of the {len(rollouts)} of round {made.number} reach the limit of "
                "their length before they end. Where answer and confidence come last they have neither, and count as "
                "wrong: raise `data.sampling.max_new_tokens`.",
            )
        if made.number == 0 or len(stated) < MIN_STATED:
            return  # before training one value is what many models state
        value, number = Counter(stated).most_common(1)[0]
        wanted = _wanted(made)
        if number >= LARGEST_SHARE_OF_ONE * len(stated) and len(set(wanted)) > 1:
            self._warn(
                "one value",
                f"Confidences have collapsed to one value: {number} of the {len(stated)} stated ones of round "
                f"{made.number} are {value:.2f}, but they should be {min(wanted):.2f} to {max(wanted):.2f}. They do "
                "not tell right answers from wrong ones. Set `model.loss.confidence` to ForwardKL, or "
                "`model.method.num_levels`; without CaOPD, wrap the method in it. See `train/teacher_copy_accuracy`.",
            )

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._has_warned:
            self._has_warned.add(kind)
            rank_zero_warn(message)


def _wanted(made: Round) -> list[float]:
    """Return what confidences should be: those that are taught, or else the estimates of the success rates."""
    taught = [sample.confidence for sample in made.trained if sample.weight and sample.confidence is not None]
    return taught or [each for group in made.groups for each in group.mu_hats if each is not None]
