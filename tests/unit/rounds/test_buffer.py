import dataclasses
import hashlib
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


def test_no_field_of_the_carriers_is_left_out_but_what_tokens_were_drawn_from(tmp_path):
    save_groups(tmp_path / "a.jsonl", GROUPS[:1])
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[1])
    for carrier, saved in (
        (GROUPS[0], row),
        (GROUPS[0].example, row["example"]),
        (GROUPS[0].rollouts[0], row["rollouts"][0]),
        (GROUPS[0].rollouts[0].rollout, row["rollouts"][0]["rollout"]),
    ):
        names = [field.name for field in dataclasses.fields(carrier)]
        assert list(saved) == [name for name in names if name != "drawn_logprobs"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "round.jsonl"
    save_groups(path, GROUPS[:1])
    with pytest.raises(TypeError):
        save_groups(path, [GROUPS[1], object()])
    assert load_groups(path) == GROUPS[:1]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"round_7\.jsonl.*no such file"):
        load_groups(tmp_path / "round_7.jsonl")


def header(path):
    return json.loads(path.read_bytes().partition(b"\n")[0])


def test_the_first_line_says_what_the_others_are(tmp_path):
    path = tmp_path / "a.jsonl"
    digest = save_groups(path, GROUPS, 3, {"data.seed": "7"})
    lines = path.read_bytes().partition(b"\n")[2]
    assert header(path) == {
        **{"format": 2, "round": 3, "settings": {"data.seed": "7"}, "num_groups": 2},
        "sha256": hashlib.sha256(lines).hexdigest(),
    }
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_groups(path, digest) == GROUPS


def test_a_file_that_is_whole_but_another_one_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    digest = save_groups(path, GROUPS, 3)
    other = save_groups(path, GROUPS, 4)
    with pytest.raises(DataError) as raised:
        load_groups(path, digest)
    for part in (str(path), digest[:12], other[:12], "a file of round 4"):
        assert part in str(raised.value)


def test_every_flipped_bit_is_found_or_changes_no_group(tmp_path):
    """A resumed run knows the digest of the whole file, other readers that of the groups."""
    path = tmp_path / "a.jsonl"
    digest = save_groups(path, GROUPS, 3, {"data.seed": "7"})
    content = path.read_bytes()
    first = content.index(b"\n")
    bits = [*range(0, first * 8, 3), *range(first * 8, len(content) * 8, 101)]
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"a\.jsonl"):
            load_groups(path, digest)
        try:
            groups = load_groups(path)
        except DataError:
            continue
        assert groups == GROUPS
        assert bit // 8 < first


@pytest.mark.parametrize(("version", "wrote"), [(1, "an older"), (3, "a newer"), ("x", "a newer")])
def test_other_formats_are_refused_with_what_is_read_here(tmp_path, version, wrote):
    path = tmp_path / "a.jsonl"
    save_groups(path, GROUPS)
    lines = path.read_bytes().partition(b"\n")[2]
    path.write_bytes(json.dumps({**header(path), "format": version}).encode() + b"\n" + lines)
    with pytest.raises(DataError, match=rf"of format 2, .*{version!r}: it was written by {wrote} version"):
        load_groups(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]\n", b'{"example": {}}\n', b"\xff\n"])
def test_a_file_without_a_header_is_refused(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"first line of .*a\.jsonl"):
        load_groups(tmp_path / "a.jsonl")
