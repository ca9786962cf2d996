"""The benchmark of vOPD's variance: against the closed form, and what it writes."""

import json

import torch

import vopd


def test_variance_is_that_of_the_closed_form():
    student_PV, teacher_PV = vopd.random_pairs(5, 7, 1.0)
    for top_k in (None, 0):
        actual_P, error = vopd.variance_and_error(student_PV, teacher_PV, top_k)
        assert error < 1e-12
        for actual, student_V, teacher_V in zip(actual_P, student_PV.softmax(-1), teacher_PV.softmax(-1), strict=True):
            ratio_V = (teacher_V / student_V).log()
            baseline = 0.0 if top_k == 0 else (student_V * -ratio_V).sum()
            # The gradient for the sample y is A_y (S - e_y).
            gradient_VV = (ratio_V + baseline).unsqueeze(-1) * (student_V - torch.eye(7, dtype=torch.float64))
            second, mean_V = student_V @ gradient_VV.square().sum(-1), student_V @ gradient_VV
            torch.testing.assert_close(actual, second - mean_V.square().sum())


def test_writes_what_it_measured(tmp_path):
    vopd.main(["--num_pairs=20", "--vocabulary=5", f"--results={tmp_path}"])
    rows = json.loads((tmp_path / "vopd.json").read_text())["rows"]
    assert len(rows) == len(vopd.DISTANCES) * len(vopd.BASELINES)
    for row in rows:
        assert (row["median_share_of_plain_variance"] == 1) == (row["baseline"] == "none")
    table = (tmp_path / "vopd.md").read_text().splitlines()[6:]
    assert [line.split(" | ")[2] for line in table] == [f"{r['median_share_of_plain_variance']:.3f}" for r in rows]
