"""The forms that are compared: which rollouts without another one's solution are taught mu_hat."""

from __future__ import annotations

from dataclasses import dataclass, replace

from caopd.methods import SDPO, CaOPD
from caopd.types import TrainSample, VerifiedGroup


@dataclass(frozen=True)
class UnsolvedGroups(CaOPD):
    """CaOPD that teaches mu_hat in groups without a success, too, but not to the only success of a group."""

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return the samples of CaOPD, without those that the group's only success makes alone."""
        samples = super().train_samples(group)
        if any(verdict.correct for verdict in group.verdicts):
            return [replace(sample, weight=sample.weight * sample.body_weight) for sample in samples]
        return samples


LITERAL, UNSOLVED, ALL = "literal", "unsolved groups", "all rollouts"
FORMS: dict[str, CaOPD] = {
    LITERAL: CaOPD(SDPO(), calibrate_all=False),
    UNSOLVED: UnsolvedGroups(SDPO()),
    ALL: CaOPD(SDPO()),
}
