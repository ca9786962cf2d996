"""An estimator of mu_hat whose prior is what the student itself states, recalibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from caopd.methods.estimators.shrinkage import Shrinkage
from caopd.types import VerifiedGroup

MOMENTS = ("stated", "rate", "stated_squared", "product")
"""Of c, m, c^2 and c m over groups: what a line through (c, m) by least squares is made of."""
MIN_VARIANCE = 1e-4
"""Variance of c below which it says nothing of m, and the line has no slope."""


@dataclass
class StatedPrior(Shrinkage):
    """Posterior mean under a Beta(s b, s (1 - b)) prior around what the student states: (sum R + s b) / (G + s).

    b = alpha + beta c, kept in [0, 1], predicts the success rate m of a group from c, the mean of the confidences that
    its rollouts state. The line is fitted by least squares to all past groups, which fade by 1 - momentum a round. So a
    student that is too sure, or not sure enough, is corrected, and where it tells nothing apart b is the mean accuracy,
    as in :class:`Shrinkage`.

    A student learns to state mu_hat with its scatter: of k / G, and of prompts that look alike to it. The larger s is,
    the more it is taught its own mean instead, which ranks and calibrates better.

    Args:
        strength: s, the weight of the prior as a number of rollouts; 0 gives the Monte Carlo estimate.
        momentum: Share of the past that each round replaces; the first round sets it.
    """

    strength: float = 8.0
    momentum: float = 0.3
    _moments: dict[str, float] = field(default_factory=dict, init=False)

    def estimate_group(
        self, group: VerifiedGroup, teacher_answers: Sequence[str | None] = ()
    ) -> tuple[float | None, ...]:
        """Return the posterior mean for every verdict; a group that states nothing has the mean accuracy as its prior.

        Args:
            group: The group, as in the base class.
            teacher_answers: Not used.
        """
        verdicts, stated = group.verdicts, _mean_stated(group)
        if stated is None:
            return self.estimate_each(verdicts, teacher_answers)
        weight = sum(verdict.correct for verdict in verdicts) + self.strength * self.predicted(stated)
        return (weight / (len(verdicts) + self.strength),) * len(verdicts)

    def predicted(self, stated: float) -> float:
        """Return b, the success rate that the line has where a group states so much; 1/2 before the first round.

        Args:
            stated: c, the mean of what the group's rollouts state.
        """
        if not self._moments:
            return 0.5
        mean_c, mean_m, mean_cc, mean_cm = (self._moments[name] for name in MOMENTS)
        variance = mean_cc - mean_c**2
        slope = (mean_cm - mean_c * mean_m) / variance if variance >= MIN_VARIANCE else 0.0
        return min(1.0, max(0.0, mean_m + slope * (stated - mean_c)))

    def learn_from(self, groups: Sequence[VerifiedGroup]) -> None:
        """Move the running means towards those of the round's groups, without such as state nothing."""
        super().learn_from(groups)
        rates = [fmean(verdict.correct for verdict in group.verdicts) for group in groups]
        pairs = [(c, m) for group, m in zip(groups, rates, strict=True) if (c := _mean_stated(group)) is not None]
        if pairs:
            found = (fmean(each) for each in zip(*((c, m, c * c, c * m) for c, m in pairs), strict=True))
            new = dict(zip(MOMENTS, found, strict=True))
            past = self._moments or new
            self._moments = {name: past[name] + self.momentum * (new[name] - past[name]) for name in MOMENTS}

    def state_dict(self) -> dict[str, float]:
        """Return the running means."""
        return super().state_dict() | self._moments

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the running means."""
        super().load_state_dict(state)
        self._moments = {name: state[name] for name in MOMENTS if name in state}


def _mean_stated(group: VerifiedGroup) -> float | None:
    """Return the mean of what the rollouts of a group that have a verdict state; None where none states anything."""
    readings = [each.reading.value for each in group.rollouts if each.verdict is not None]
    stated = [value for value in readings if value is not None]
    return fmean(stated) if stated else None
