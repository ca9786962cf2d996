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
    if "failed" in found:
        return ["Failed: it has", "", "```text", found["failed"], "```"]
    if "skipped" in found:
        return [f"Left out: {found['skipped']}."]
    heads = list(found["rows"][0])
    rows = [[_cell(row[head]) for head in heads] for row in found["rows"]]
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
