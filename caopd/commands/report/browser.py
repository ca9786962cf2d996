"""The completions of a report: a table of where they are, and the part of the page in which they are filtered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from caopd.commands.report.completions import MAX_CHARACTERS, Prompt, Source
from caopd.commands.report.tables import Column, ReportTable, Row
from caopd.texts import escaped

SCRIPT = Path(__file__).with_name("completions.js")
"""The one script of the page."""
_FIELDS = SCRIPT.with_suffix(".html")
"""Fields to filter by, and an empty table, which the script fills."""
_KEYS = ("Run", "Step", "Event", "Task", "Shown", "Completions", "File")


def completions_table(sources: Sequence[Source]) -> ReportTable:
    """Return the table of the files with completions: how many of each a page shows, and where all are.

    Args:
        sources: The files.
    """
    rows: list[Row] = [
        {
            "run": source.run,
            "step": source.step,
            "event": source.event,
            "task": source.task,
            "shown": len(source.shown),
            "completions": source.total,
            "file": str(source.file),
        }
        for source in sources
    ]
    keys = [key for key in _KEYS if key != "Task" or any(source.task for source in sources)]
    return ReportTable("completions", "Completions", _note(sources), [Column(key.lower(), key) for key in keys], rows)


def _note(sources: Sequence[Source]) -> str:
    if not sources:
        return (
            "No completions, since no run directory holds predictions, which `caopd predict` writes, or rollouts, "
            "which `data.keep_rounds` keeps."
        )
    shown, total = (
        sum(numbers) for numbers in ([len(each.shown) for each in sources], [each.total for each in sources])
    )
    parts = [f"`report.html` shows all {total:,}, to be searched and filtered."]
    if shown < total:
        parts = [
            f"`report.html` shows {shown:,} of {total:,}, to be searched and filtered: the first ones of every file, "
            "as many as a page can hold. The files hold all."
        ]
    parts.append(f"Of texts of more than {MAX_CHARACTERS:,} characters the middle is left out.")
    if any(source.file.parent.name == "rollouts" for source in sources):
        parts.append("Of runs without predictions these are the rollouts of the last training round.")
    return " ".join(parts)


def browser(sources: Sequence[Source]) -> str:
    """Return the part of the page below the table: fields to filter by, the completions as data, and the script.

    Args:
        sources: The files, in the order of the table.
    """
    # No text can end the element that holds it, or begin a comment: there is no "<".
    data = json.dumps(_data(sources), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    fields, script = (path.read_text(encoding="utf-8") for path in (_FIELDS, SCRIPT))
    payload = f'<script type="application/json" id="completions-data">{data}</script>'
    return f"{fields}{payload}\n<script>{script}</script>"


def _data(sources: Sequence[Source]) -> dict[str, object]:
    """Return what the script reads; a prompt is there once, however many completions it has."""
    prompts: dict[Prompt, int] = {}
    rows = [
        [
            number,
            prompts.setdefault(each.prompt, len(prompts)),
            each.sample,
            each.response,
            each.answer,
            each.correct,
            each.confidence,
            each.outcome,
            each.mu_hat,
        ]
        for number, source in enumerate(sources)
        for each in source.shown
    ]
    names = [[escaped(text) for text in (each.run, each.step, each.event, each.task)] for each in sources]
    return {"sources": names, "prompts": list(prompts), "rows": rows}
