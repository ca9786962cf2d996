"""The page of what was planned and what was measured."""

from plan import SEEN, page, sizes

ENVIRONMENT = {"timestamp": "2026-11-27T00:00:00+00:00", "machine": "x", "cpus": 2, "versions": {"torch": "2.13.0"}}


def test_the_page_says_by_which_cases_constants_were_chosen():
    numbers = {"libraries_mib": 600.2, "planned_mib": 1100.0, "measured_mib": 1000.4, "error": 0.0996}
    text = page({**ENVIRONMENT, "cases": [{"case": name, **numbers} for name in (SEEN[0], "another")]})
    assert f"| {SEEN[0]} | 600 | 1,100 | 1,000 | +10% | no |" in text
    assert "| another | 600 | 1,100 | 1,000 | +10% | yes |" in text


def test_a_rounds_size_is_that_of_the_options():
    assert sizes(8, 4, 48, batch=32)[1:3] == ["--data.round.num_rollouts=4", "--data.sampling.max_new_tokens=48"]
