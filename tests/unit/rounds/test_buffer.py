import dataclasses
import json
import math
from dataclasses import replace

import pytest

from caopd.errors import DataError
from caopd.rounds.buffer import load_groups, save_groups
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedGroup,
    VerifiedRollout,
)


def rollout(text, stop_reason, verdict, reading, logprobs=(-0.1, -1 / 3)):
    return VerifiedRollout(Rollout((5, 0), text, stop_reason, logprobs, policy_version=12), verdict, reading)


RIGHT = Verdict(True, "B", AnswerOutcome.PARSED)
WRONG = Verdict(False, "C", AnswerOutcome.PARSED, feedback="Not C.\u2028")
MISSING = ConfidenceReading(None, None, ConfidenceOutcome.MISSING)
GROUPS = [
    VerifiedGroup(
        Example("1", "Which?\u2028\n", "B", system="S", demonstration="D", category="chemistry"),
        (7, 0, 3),
        (
            rollout("B", StopReason.EOS, RIGHT, ConfidenceReading(0.85, (2, 18), ConfidenceOutcome.PERCENT)),
            rollout("C", StopReason.EOS, WRONG, MISSING),
            replace(rollout("B", StopReason.EOS, RIGHT, MISSING), rewards={"Brevity": -1 / 3}),
            rollout("D", StopReason.EOS, None, MISSING),
            rollout("\x00😀\ud83d\x85\u2029", StopReason.LENGTH, RIGHT, MISSING, (-0.0, -123.456e-30)),
        ),
        mu_hats=(1 / 3, 0.0, 0.5, None, None),
    ),
    VerifiedGroup(
        Example("2", "", ""),
        (),
        tuple(
            rollout("", StopReason.EOS, Verdict(False, None, answer), ConfidenceReading(None, (0, 3), stated))
            for answer in AnswerOutcome
            for stated in ConfidenceOutcome
        ),
        mu_hats=(None,) * (len(AnswerOutcome) * len(ConfidenceOutcome)),
    ),
]


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "folder" / "round.jsonl"
    save_groups(path, GROUPS)
    loaded = load_groups(path)
    assert loaded == GROUPS
    # Equal is not enough: enumerations compare equal to strings, and 0.0 to -0.0.
    assert repr(loaded) == repr(GROUPS)


def test_infinite_logprobs_survive(tmp_path):
    group = VerifiedGroup(
        Example("1", "Q", "B"), (4,), (rollout("B", StopReason.EOS, RIGHT, MISSING, (-math.inf, -1.0)),), (0.0,)
    )
    save_groups(tmp_path / "a.jsonl", [group])
    assert load_groups(tmp_path / "a.jsonl") == [group]


def test_no_field_of_the_carriers_is_left_out(tmp_path):
    save_groups(tmp_path / "a.jsonl", GROUPS[:1])
    row = json.loads((tmp_path / "a.jsonl").read_text())
    for carrier, saved in (
        (GROUPS[0], row),
        (GROUPS[0].example, row["example"]),
        (GROUPS[0].rollouts[0], row["rollouts"][0]),
        (GROUPS[0].rollouts[0].rollout, row["rollouts"][0]["rollout"]),
    ):
        assert list(saved) == [field.name for field in dataclasses.fields(carrier)]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "round.jsonl"
    save_groups(path, GROUPS[:1])
    with pytest.raises(TypeError):
        save_groups(path, [GROUPS[1], object()])
    assert load_groups(path) == GROUPS[:1]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"round_7\.jsonl.*no such file.*Resume"):
        load_groups(tmp_path / "round_7.jsonl")
