"""The completions of a report in headless Chromium, filtered as a user does: with mouse and keyboard."""

import json
import random

import pytest

from caopd.cli import main
from tests.chromium import CHROMIUM, REASON, Chromium
from tests.hostile.conftest import TEXTS, run_directory

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=REASON)
CATEGORIES = ("easy", "hard", "")
NUM_PROMPTS = 1250


def rows_of(seed):
    """Completions of 1,250 prompts, of which some state nothing, and some have no verdict."""
    draw = random.Random(seed)
    for number in range(NUM_PROMPTS):
        confidence = None if number % 25 == 0 else draw.randrange(101) / 100
        yield {
            "prompt_id": f"p{number}",
            "category": CATEGORIES[number % 3],
            "question": f"What is {number} + 1? {'Think. ' * 40}",
            "response": f"It is {number + 1}.\nConfidence: {confidence}\n{'word ' * 100}",
            "target": str(number + 1),
            "answer": str(number + 1),
            "confidence": confidence,
            "confidence_outcome": "missing" if confidence is None else "decimal",
            "correct": None if number % 50 == 1 else draw.randrange(2),
        }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """5,000 completions of two runs, each at two steps, as (run, step, row)."""
    root = tmp_path_factory.mktemp("runs")
    every = []
    for number, name in enumerate(("first", "second")):
        run_directory(root / name)
        for step in ("step_000004", "step_000008"):
            rows = list(rows_of(f"{number} {step}"))
            (root / name / step).mkdir()
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (root / name / step / "predictions.greedy.jsonl").write_text(lines)
            every += [(name, step, row) for row in rows]
    assert main(["report", str(root), f"--output={root / 'report'}", "--names", "first", "second"]) == 0
    return root / "report", every


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Chromium(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def page(written, browser):
    browser.open(written[0] / "report.html")
    yield browser
    assert browser.complaints == []


def field(name):
    return f"#completions-form [name={name}]"


def summary(page):
    return page.evaluate("document.querySelector('#completions-found').textContent")


def shown(page):
    """The rows that can be seen, as the texts of their cells."""
    return page.evaluate(
        "[...document.querySelectorAll('#completions-table tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.innerText))"
    )


def expected(every, keep):
    """What the page says of the rows that a filter keeps, computed here."""
    kept = [row for name, step, row in every if keep(name, step, row)]
    judged = [row["correct"] for row in kept if row["correct"] is not None]
    stated = [row["confidence"] for row in kept if row["confidence"] is not None]
    said = [f"{len(kept):,} of {len(every):,} completions"]
    said += [f"{100 * sum(judged) / len(judged):.1f} % correct"] if judged else []
    said += [f"mean confidence {sum(stated) / len(stated):.2f}"] if stated else []
    return "; ".join(said)


def test_all_are_there_and_a_page_has_some(page, written):
    assert summary(page) == expected(written[1], lambda *_: True)
    assert summary(page).startswith("5,000 of 5,000 completions; ")
    rows = shown(page)
    assert len(rows) == 25
    run, prompt, completion, verdict, confidence = rows[1]
    assert run == "first\nstep_000004, greedy"
    assert prompt.startswith("p1, hard\nWhat is 1 + 1? Think.")
    assert completion.startswith("It is 2.\nConfidence: ")
    assert verdict == "no verdict\nanswer: 2\ntarget: 2"
    assert confidence == f"{written[1][1][2]['confidence']:.2f}"
    assert rows[0][4] == "none\nmissing"


FILTERS = {
    "text": ({"text": "is 77."}, lambda name, step, row: "is 77." in row["response"]),
    "case": ({"text": "THINK"}, lambda *_: True),
    "prompt": ({"text": "p1249"}, lambda name, step, row: row["prompt_id"] == "p1249"),
    "run": ({"run": "second"}, lambda name, step, row: name == "second"),
    "step": ({"step": "step_000004"}, lambda name, step, row: step == "step_000004"),
    "category": ({"category": "hard"}, lambda name, step, row: row["category"] == "hard"),
    "no category": ({"category": "none"}, lambda name, step, row: not row["category"]),
    "wrong": ({"verdict": "wrong"}, lambda name, step, row: row["correct"] == 0),
    "no verdict": ({"verdict": "no verdict"}, lambda name, step, row: row["correct"] is None),
    "stated": ({"stated": "stated"}, lambda name, step, row: row["confidence"] is not None),
    "not stated": ({"stated": "none"}, lambda name, step, row: row["confidence"] is None),
    "range": (
        {"low": "0.25", "high": "0.5"},
        lambda name, step, row: row["confidence"] is not None and 0.25 <= row["confidence"] <= 0.5,
    ),
    "surely wrong": (
        {"verdict": "wrong", "low": "0.9", "run": "first", "category": "easy"},
        lambda name, step, row: (
            (name, row["category"], row["correct"]) == ("first", "easy", 0) and (row["confidence"] or 0) >= 0.9
        ),
    ),
}


def use(page, filters):
    for name, value in filters.items():
        (page.write if name in ("text", "low", "high") else page.choose)(field(name), value)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_what_it_says(page, written, name):
    filters, keep = FILTERS[name]
    use(page, filters)
    assert summary(page) == expected(written[1], keep)
    assert "0 of" not in summary(page)[:4]
    page.click("#completions-form button[type=reset]")
    page.wait_for("document.querySelector('#completions-found').textContent.startsWith('5,000 of 5,000')")


def test_what_is_searched_is_marked(page):
    use(page, {"text": "IT IS 77."})
    marked = page.evaluate("[...document.querySelectorAll('mark')].map(each => each.textContent)")
    assert marked == ["It is 77."] * 4


def test_a_text_that_is_cut_is_marked_and_is_whole_when_it_is_clicked(page):
    use(page, {"text": "p1249"})
    cut = "[...document.querySelectorAll('.text')].map(text => [text.scrollHeight > text.clientHeight, text.className])"
    assert {tuple(each) for each in page.evaluate(cut)} == {(True, "text long"), (False, "text")}
    page.click(".long")
    assert page.evaluate("document.activeElement.scrollHeight === document.activeElement.clientHeight")


def test_nothing_found_says_so_and_clearing_the_field_brings_all_back(page):
    use(page, {"text": "no such text"})
    assert summary(page) == "No completion of 5,000 is such: widen the filter."
    assert shown(page) == []
    use(page, {"text": ""})
    assert len(shown(page)) == 25


def test_pages_are_turned(page):
    use(page, {"text": "p12"})  # p12, p120 to p129, p1200 to p1249: 61 prompts, four times
    first = shown(page)
    assert page.evaluate("document.querySelector('#completions-pages span').textContent") == "1 to 25 of 244"
    assert page.evaluate("document.querySelector('[name=back]').disabled")
    for _ in range(9):
        page.click("[name=on]")
    assert page.evaluate("document.querySelector('#completions-pages span').textContent") == "226 to 244 of 244"
    assert page.evaluate("document.querySelector('[name=on]').disabled")
    assert len(shown(page)) == 19
    for _ in range(9):
        page.click("[name=back]")
    assert shown(page) == first


def test_a_file_of_the_table_leads_to_its_completions(page, written):
    page.click("#completions summary")
    page.click("#completions details tbody tr:nth-child(3) a")
    own = expected(written[1], lambda name, step, row: (name, step) == ("second", "step_000004"))
    assert summary(page) == f"{own}; of one file: Clear shows all"
    page.click("#completions-form button[type=reset]")
    page.wait_for("document.querySelector('#completions-found').textContent.startsWith('5,000 of 5,000')")


def test_five_thousand_are_filtered_at_once(page, written):
    """Each of ten letters that a user types takes a fraction of a second, also on a slow and busy machine."""
    assert (written[0] / "report.html").stat().st_size < 12_000_000
    seconds = page.evaluate(
        """(() => {
          const field = document.querySelector("[name=text]");
          const begin = performance.now();
          for (let end = 1; end <= 10; end += 1) {
            field.value = "confidence: 0.5".slice(0, end);
            field.dispatchEvent(new Event("input", { bubbles: true }));
          }
          return (performance.now() - begin) / 1000;
        })()"""
    )
    assert seconds < 5


def test_on_a_small_screen_a_completion_is_a_block_and_nothing_is_cut(written, browser):
    browser.open(written[0] / "report.html", width=400, height=800)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    lefts = "[...document.querySelectorAll('#completions-table tbody tr:first-child td')].map(cell => cell.offsetLeft)"
    assert len(set(browser.evaluate(lefts))) == 1


def test_texts_of_strangers_are_shown_as_texts(tmp_path, browser):
    rows = [
        {"prompt_id": text, "category": text, "question": text, "response": text, "answer": text, "target": text}
        | {"confidence": 0.5, "correct": 1, "confidence_outcome": text}
        for text in TEXTS
    ]
    run_directory(tmp_path / "run")
    file = tmp_path / "run" / "predictions.<b>task.greedy.jsonl"  # one that is not scored, so that any outcome goes
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(tmp_path / "run"), f"--output={tmp_path / 'report'}"]) == 0
    browser.open(tmp_path / "report" / "report.html")
    assert browser.complaints == []
    assert len(shown(browser)) == len(TEXTS)
    tags = browser.evaluate("[...new Set([...document.querySelectorAll('#completions *')].map(each => each.tagName))]")
    assert not {"IMG", "B", "IFRAME", "LINK"} & set(tags)
    assert browser.evaluate("document.scripts.length") == 2
    assert browser.evaluate("[...document.links].every(link => link.getAttribute('href').startsWith('#'))")
    assert "<script>alert(1)</script><img src=x onerror=alert(1)>" in shown(browser)[0][2]
    use(browser, {"text": "<script>alert"})
    assert summary(browser).startswith("1 of 11 completions")
    assert browser.evaluate("document.querySelector('mark').textContent") == "<script>alert"


def test_a_script_that_was_put_into_the_page_does_not_run(written, browser, tmp_path):
    page = (written[0] / "report.html").read_text()
    bad = '<script>document.title = "bad"</script><img src="x" onerror="document.title = \'bad\'">'
    (tmp_path / "page.html").write_text(page.replace("<h1>", f"{bad}<h1>"))
    browser.open(tmp_path / "page.html")
    assert browser.evaluate("document.title") == "Comparison of runs"
    assert any("Content Security Policy" in each for each in browser.complaints)
    assert summary(browser).startswith("5,000 of 5,000")
