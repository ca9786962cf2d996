"""Writes a report: one page in Markdown and one in HTML, with tables and figures beside them."""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from caopd import __version__
from caopd.commands.outputs import together
from caopd.commands.report.browser import SCRIPT, browser, completions_table
from caopd.commands.report.completions import Source, completions_of
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
_HEADING = re.compile(r'<h2 id="([^"]*)">(.*?)</h2>')
STYLE = Path(__file__).with_name("page.css")
"""The style of the page."""


def write_report(sets: Sequence[RunSet], directory: Path, title: str) -> list[Path]:
    """Write all files of a report, or none, and return the paths of its two pages.

    Args:
        sets: The sets of runs.
        directory: Where the report goes, made if it is missing; files of an earlier report are overwritten.
        title: Title of the page.

    Raises:
        OSError: A file cannot be written.
    """
    all_tables, sections, sources = tables(sets), figures(sets), completions_of(sets)
    files = completions_table(sources)
    with together(directory) as folder:
        for name in (FIGURES, TABLES):
            (folder / name).mkdir()
        for table in [*all_tables, files]:
            stem = folder / TABLES / table.name
            write_text(stem.with_suffix(".csv"), table.csv())
            write_text(stem.with_suffix(".tex"), table.latex())
        for section in sections:
            for name, figure in section.figures.items():
                save_figure(figure, folder / FIGURES / name)
        write_text(folder / MARKDOWN, _markdown(title, all_tables, sections, files))
        body = [*map(_table, all_tables), *_figures(sections, folder / FIGURES), _completions(files, sources)]
        write_text(folder / HTML, _html(escaped(title), body))
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


def _markdown(
    title: str, all_tables: Sequence[ReportTable], sections: Sequence[ReportFigures], files: ReportTable
) -> str:
    parts = [f"# {in_markdown(title)}"]
    for table in all_tables:
        parts += [f"## {table.title}", table.markdown(), table.note]
    for section in sections:
        images = [f"![{section.title}]({FIGURES}/{name}.svg)" for name in section.figures]
        parts += [f"## {section.title}", section.text, *([" ".join(images)] if images else [])]
        if section.missing:
            reasons = "\n".join(f"- {in_markdown('; '.join(names))}: {why}." for why, names in section.reasons.items())
            parts += [_before_reasons(section), reasons]
    parts += [f"## {files.title}", *([files.markdown()] if files.rows else []), files.note]
    return "\n\n".join(parts) + "\n"


def _html(title: str, body: Sequence[str]) -> str:
    """Return the page: its one script is the one whose digest it names, and it asks for nothing from elsewhere."""
    digest = b64encode(sha256(SCRIPT.read_bytes()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    headings = [(anchor, heading) for part in body for anchor, heading in _HEADING.findall(part)]
    links = "\n".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading in headings)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n' + "\n".join(body) + "\n"
        f"<footer>caopd {__version__}; tables as CSV and LaTeX in <code>{TABLES}</code>, figures as SVG, PDF and PNG "
        f"in <code>{FIGURES}</code>.</footer>\n</body>\n</html>\n"
    )


def _heading(title: str) -> str:
    anchor = re.sub(r"\W+", "-", title.lower())
    return f'<h2 id="section-{anchor}">{html.escape(title)}</h2>'


def _table(table: ReportTable) -> str:
    return f'{_heading(table.title)}\n<div class="scroll">{table.html()}</div>\n<p>{_prose(table.note)}</p>'


def _figures(sections: Sequence[ReportFigures], folder: Path) -> list[str]:
    parts = []
    for wide, group in groupby(sections, key=lambda section: section.wide):
        inside = "\n".join(f"<section>{_section(section, folder)}</section>" for section in group)
        parts.append(inside if wide else f'<div class="narrow">{inside}</div>')
    return parts


def _completions(files: ReportTable, sources: Sequence[Source]) -> str:
    if not sources:
        return f'{_heading(files.title)}\n<div class="missing"><p>{_prose(files.note)}</p></div>'
    listed = f'<details><summary>Files</summary>\n<div class="scroll">{files.html()}</div></details>'
    parts = (_heading(files.title), f"<p>{_prose(files.note)}</p>", listed, browser(sources))
    return '<section id="completions">{}</section>'.format("\n".join(parts))


def _section(section: ReportFigures, folder: Path) -> str:
    svgs = {name: (folder / f"{name}.svg").read_text(encoding="utf-8") for name in section.figures}
    parts = [_heading(section.title), f"<p>{_prose(section.text)}</p>"]
    if svgs:
        shown = (
            f'<figure class="{name}">{inline_svg(svg, f"{name}-", section.title)}</figure>'
            for name, svg in svgs.items()
        )
        parts.append('<div class="figures">{}</div>'.format("\n".join(shown)))
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
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text)).replace(" %", "&nbsp;%")
