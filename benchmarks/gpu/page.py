"""The page of what a GPU has shown."""

from __future__ import annotations

from gpu.sections import SECTIONS


def page(record: dict) -> str:
    """Return the page of a record, of the parts that have been run so far."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        "# What only a GPU can show",
        "",
        f"`benchmarks/gpu/run`; {record['device']}, {record['timestamp'][:10]}; {versions}; size `{record['size']}`.",
        "",
    ]
    for name, found in record["sections"].items():
        section = SECTIONS[name]
        lines += [f"## {section.title}", "", f"{section.text} {found['seconds']:.0f} s.", ""]
        lines += [*_result(found), ""]
    return "\n".join(lines)


def _result(found: dict) -> list[str]:
    lines, rows = [], found["rows"]
    if rows and "skipped" in rows[0]:
        return [f"Left out: {rows[0]['skipped']}."]
    if rows:
        cells = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        lines += [f"| {' | '.join(line)} |" for line in cells]
    if "failed" in found:
        lines += ["", "No more, since it has failed:", "", "```text", found["failed"], "```"]
    return lines


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
