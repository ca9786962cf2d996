"""Makes a whole round without a Trainer: prompts in; groups, training samples and statistics out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from caopd.distributed import gather_in_order, num_processes, process_number
from caopd.errors import RolloutError, UserCodeError, name_of, user_code
from caopd.rounds.diagnostics import TeacherProbe, optimism_bias, stated_optimism
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.filling import TokenizedSample
from caopd.rounds.groups import GroupSampler, Policies
from caopd.rounds.prompts import RoundPrompts
from caopd.rounds.samples import probed_context, train_samples
from caopd.rounds.statistics import method_statistics, round_statistics
from caopd.types import TrainSample, VerifiedGroup, verdicts_of
from caopd.verifiers import Verifier


@dataclass(frozen=True)
class Round:
    """A round: its rollouts and training samples, the same in every process.

    Attributes:
        number: Number of the round, counted from 0.
        groups: The rollouts of every prompt, in the order of the prompts.
        samples: The training samples that the method made of each group, one per rollout.
        num_trained_rollouts: How many of a group's samples are trained on, the first ones; None trains on all.
        statistics: Numbers that describe the round: name under ``rollout/`` in the log -> value.
    """

    number: int
    groups: tuple[VerifiedGroup, ...]
    samples: tuple[tuple[TrainSample, ...], ...]
    num_trained_rollouts: int | None
    statistics: dict[str, float]

    @property
    def trained(self) -> list[TrainSample]:
        """The training samples that are trained on, group by group."""
        return [sample for group in self.samples for sample in group[: self.num_trained_rollouts]]

    def tokenized(self, encoder: SampleEncoder) -> list[TokenizedSample]:
        """Return the token ids of what is trained on, with the prompts that the rollouts were sampled from.

        Args:
            encoder: The encoder for the model's tokenizer.

        Raises:
            PromptTooLongError: If a prompt with its completion does not fit the model.
        """
        pairs = zip(self.groups, self.samples, strict=True)
        prompts = [group.prompt_ids for group, samples in pairs for _ in samples[: self.num_trained_rollouts]]
        return encoder.encode(self.trained, prompts)


@dataclass(frozen=True)
class RoundMaker:
    """Makes rounds of prompts, their seeds, and the models that sample.

    Attributes:
        sampler: Samples the groups.
        probe: When the teacher's success under its context is measured.
    """

    sampler: GroupSampler
    probe: TeacherProbe

    def make(
        self,
        number: int,
        prompts: RoundPrompts,
        policies: Policies,
        keep: Callable[[Sequence[VerifiedGroup]], None] = lambda groups: None,
    ) -> Round:
        """Sample a round's rollouts and make its training samples; collective, where several processes train.

        Args:
            number: Number of the round, counted from 0.
            prompts: The prompts of all processes, each of which samples its share.
            policies: The student and its teacher.
            keep: Called with all groups before anything is made of them, so that no error of a method loses them.

        Raises:
            RolloutError: The engine failed, or has not sampled with these weights.
            UserCodeError: A class that the config names raised, or the verifier returned for no rollout.
        """
        sampler = self.sampler
        if sampler.method.min_rollouts == 0:
            unsampled = sampler.encoder.unsampled(prompts.examples)
            keep(unsampled)
            return self.of_groups(number, unsampled)
        mine = prompts.share(process_number(), num_processes())
        sampled, measured = sampler.sample(policies, mine)
        groups = gather_in_order(sampled)
        keep(groups)
        check_rollouts(number, groups, prompts.verifier)
        whole = self.of_groups(number, groups, measured)
        if process_number() == 0 and not any(sample.weight for sample in whole.trained):
            warnings.warn(
                f"Round {number} teaches nothing: none of its {len(whole.trained)} training samples has any weight, "
                f"since {name_of(sampler.method)} found nothing to teach with. Its optimizer steps have a gradient "
                "of 0.",
                stacklevel=2,
            )
        if self.probe.is_due(number):
            whole = self._probed(whole, policies, sampled, mine)
        size = None if sampler.estimator.learns_from_stopped else sampler.round.smallest_group
        judged = [verdicts for group in whole.groups if (verdicts := verdicts_of(group.rollouts[:size]))]
        with user_code(sampler.estimator, f"round {number}"):
            if judged:
                sampler.estimator.end_round(judged)
        return whole

    def of_groups(
        self, number: int, groups: Sequence[VerifiedGroup], measured: dict[str, float] | None = None
    ) -> Round:
        """Return the round that is made of given groups, such as those of a run that was interrupted.

        Args:
            number: Number of the round.
            groups: All groups of the round.
            measured: Numbers that were measured while the groups were sampled.
        """
        method = self.sampler.method
        samples = tuple(tuple(train_samples(method, group)) for group in groups)
        made = Round(number, tuple(groups), samples, self.sampler.round.num_trained_rollouts, {})
        statistics = (
            round_statistics(groups, made.trained)
            | method_statistics(method, groups, samples)
            | stated_optimism(groups, samples)
            | (measured or {})
        )
        return replace(made, statistics=statistics)

    def _probed(self, whole: Round, policies: Policies, mine: Sequence[VerifiedGroup], prompts: RoundPrompts) -> Round:
        """Return the round with the teacher's success on its prompts, under the contexts of their samples."""
        first = process_number() * len(mine)
        own = whole.samples[first : first + len(mine)]
        contexts = [probed_context(group) for group in own]
        num_rollouts = self.probe.num_rollouts
        taught = self.sampler.sample_taught(policies, mine, contexts, prompts.reseeded("probe"), num_rollouts)
        bias = optimism_bias(whole.groups, gather_in_order(taught))
        return replace(whole, statistics=whole.statistics | bias)


def check_rollouts(number: int, groups: Sequence[VerifiedGroup], verifier: Verifier) -> None:
    """Raise if a round has nothing that could be trained on.

    Args:
        number: Number of the round.
        groups: All groups of the round, with rollouts.
        verifier: The verifier of their task.

    Raises:
        RolloutError: No completion has a token.
        UserCodeError: No rollout has a verdict.
    """
    rollouts = [verified for group in groups for verified in group.rollouts]
    if not any(verified.rollout.token_ids for verified in rollouts):
        raise RolloutError(
            f"Expected completions with tokens, but all {len(rollouts)} rollouts of round {number} are empty: the "
            "engine, or the chat template, ends them before they begin. Complete a prompt by hand to see why."
        )
    if not any(verified.verdict for verified in rollouts):
        raise UserCodeError(
            f"Expected {name_of(verifier)} to judge the {len(rollouts)} rollouts of round {number}, but it, or a "
            "reward, did not return for any of them, so there is nothing to train on. Correct it, or raise "
            "`data.verifier_timeout_seconds`; the warnings say how each ended."
        )
