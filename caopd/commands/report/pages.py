"""Writes a report: one page in Markdown and one in HTML, with tables and figures beside them."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from caopd import __version__
from caopd.commands.outputs import together
from caopd.commands.report.figures import figures
from caopd.commands.report.metric_tables import tables
from caopd.commands.report.sections import ReportFigures
from caopd.commands.report.sets import RunSet
from caopd.commands.report.tables import ReportTable
from caopd.files import write_text
from caopd.plots import save_figure
from caopd.texts import escaped, in_markdown

FIGURES, TABLES = "figures", "tables"
MARKDOWN, HTML = "report.md", "report.html"
_STYLE = """
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1.5rem 3rem; color: #1a1a1a; background: #fff;
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
p { max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; border: solid #1a1a1a; border-width: 2px 0; }
th, td { padding: 0.3rem 0.5rem; text-align: left; white-space: nowrap; }
thead { border-bottom: 1px solid #1a1a1a; }
tbody tr:nth-child(even) { background: #f4f4f4; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
.interval { display: block; font-size: 0.7rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.narrow { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 0 1.5rem; }
figure { margin: 0; } svg { max-width: 100%; height: auto; }
footer { margin-top: 3rem; color: #555; font-size: 0.85rem; }
@media print { h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""


def write_report(sets: Sequence[RunSet], directory: Path, title: str) -> list[Path]:
    """Write all files of a report, or none, and return the paths of its two pages.

    Args:
        sets: The sets of runs.
        directory: Where the report goes, made if it is missing; files of an earlier report are overwritten.
        title: Title of the page.

    Raises:
        OSError: A file cannot be written.
    """
    all_tables, sections = tables(sets), figures(sets)
    with together(directory) as folder:
        for name in (FIGURES, TABLES):
            (folder / name).mkdir()
        for table in all_tables:
            stem = folder / TABLES / table.name
            write_text(stem.with_suffix(".csv"), table.csv())
            write_text(stem.with_suffix(".tex"), table.latex())
        for section in sections:
            for name, figure in section.figures.items():
                save_figure(figure, folder / FIGURES / name)
        write_text(folder / MARKDOWN, _markdown(title, all_tables, sections))
        write_text(folder / HTML, _html(escaped(title), all_tables, sections, folder / FIGURES))
    return [directory / MARKDOWN, directory / HTML]


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """Return an SVG image for use inside an HTML page, with a label and with ids that no other image has.

    Args:
        svg: Content of the SVG file.
        prefix: Goes before every id, so that figures of one page do not share any.
        label: What the figure shows, for those who do not see it.

    Example:
        >>> inline_svg('<?xml version="1.0"?><svg><g id="a"/><use href="#a"/></svg>', "one-", "A line")
        '<svg role="img" aria-label="A line"><g id="one-a"/><use href="#one-a"/></svg>'
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="', rf"\g<0>{prefix}", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<0>{prefix}", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1).strip()


def _markdown(title: str, all_tables: Sequence[ReportTable], sections: Sequence[ReportFigures]) -> str:
    parts = [f"# {in_markdown(title)}"]
    for table in all_tables:
        parts += [f"## {table.title}", table.markdown(), table.note]
    for section in sections:
        images = [f"![{section.title}]({FIGURES}/{name}.svg)" for name in section.figures]
        parts += [f"## {section.title}", section.text, *([" ".join(images)] if images else [])]
        if section.missing:
            reasons = "\n".join(f"- {in_markdown('; '.join(names))}: {why}." for why, names in section.reasons.items())
            parts += [_before_reasons(section), reasons]
    return "\n\n".join(parts) + "\n"


def _html(title: str, all_tables: Sequence[ReportTable], sections: Sequence[ReportFigures], folder: Path) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for table in all_tables:
        heading = f"<h2>{html.escape(table.title)}</h2>"
        parts += [heading, f'<div class="scroll">{table.html()}</div>', f"<p>{_prose(table.note)}</p>"]
    for wide, group in groupby(sections, key=lambda section: section.wide):
        inside = "\n".join(f"<section>{_section(section, folder)}</section>" for section in group)
        parts.append(inside if wide else f'<div class="narrow">{inside}</div>')
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n<footer>caopd {__version__}; tables as CSV and LaTeX in <code>{TABLES}</code>, figures as "
        f"SVG, PDF and PNG in <code>{FIGURES}</code>.</footer>\n</body>\n</html>\n"
    )


def _section(section: ReportFigures, folder: Path) -> str:
    plotted = [
        inline_svg((folder / f"{name}.svg").read_text(encoding="utf-8"), f"{name}-", section.title)
        for name in section.figures
    ]
    parts = [f"<h2>{html.escape(section.title)}</h2>", f"<p>{_prose(section.text)}</p>"]
    if plotted:
        figures_of_it = "\n".join(f"<figure>{svg}</figure>" for svg in plotted)
        parts.append(f'<div class="figures">{figures_of_it}</div>')
    if section.missing:
        reasons = "\n".join(
            f"<li>{html.escape(escaped('; '.join(names)))}: {_prose(why)}.</li>"
            for why, names in section.reasons.items()
        )
        parts.append(f'<div class="missing"><p>{_before_reasons(section)}</p>\n<ul>{reasons}</ul></div>')
    return "\n".join(parts)


def _before_reasons(section: ReportFigures) -> str:
    return "Not shown:" if section.figures else "No figure, since there is nothing to show:"


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
