"""Sums of what is known of every token, by hand and against the mutual information that one of them is."""

import math

import pytest
import torch

from caopd.losses import TokenStatistics, segment_totals


def test_the_information_gap_of_a_teacher_whose_mean_is_the_student_is_the_mutual_information():
    """Two equally likely contexts, each with a teacher of its own; I(y; z) by summing the joint distribution."""
    taught = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    student = taught.mean(dim=0, keepdim=True).expand(2, 3)
    entropy = [torch.distributions.Categorical(probs=each).entropy() for each in (student, taught)]
    statistics = TokenStatistics(torch.zeros(2), *entropy, torch.zeros(2).long(), -entropy[0], -entropy[1])
    total, num_tokens = segment_totals(statistics, torch.ones(2), torch.zeros(2).bool())["information_gap"]
    pairs = zip(taught.flatten().tolist(), student.flatten().tolist(), strict=True)
    information = sum(0.5 * conditional * math.log(conditional / marginal) for conditional, marginal in pairs)
    assert total.item() / num_tokens.item() == pytest.approx(information, abs=1e-6)


def test_segment_totals_leave_out_what_does_not_count():
    one = torch.ones(3)
    statistics = TokenStatistics(torch.tensor([1.0, torch.inf, 3.0]), one, 2 * one, one.long(), -2 * one, -5 * one)
    confidence_T = torch.tensor([False, False, True])
    totals = segment_totals(statistics, torch.tensor([0.5, 0.0, 0.0]), confidence_T)
    assert {name: (total.item(), number.item()) for name, (total, number) in totals.items()} == {
        "kl_body": (1.0, 1),
        "kl_confidence": (0.0, 0),
        "student_entropy": (1.0, 1),
        "teacher_entropy": (2.0, 1),
        "information_gap": (-1.0, 1),
        "teacher_log_ratio": (-3.0, 1),
    }
    total, num_tokens = segment_totals(statistics, torch.ones(3), confidence_T)["kl_confidence"]
    assert (total.item(), num_tokens.item()) == (3.0, 1)
