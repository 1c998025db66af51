"""The page of the tables as one HTML file (soaes.report.page.single_file)."""

from __future__ import annotations

from pathlib import Path

from soaes.report.page import single_file
from soaes.report.page.record import Report
from soaes.report.page.single_file import FRAME, PLOTS, Page

SCRIPTS = (
    *PLOTS,
    *FRAME,
    "words.js",
    "charts.js",
    "board.js",
    "tables.js",
    "differences.js",
    "answers.js",
    "panel.js",
    "curves.js",
    "accounts.js",
    "page.js",
)


def write(path: Path, report: Report) -> str:
    """Write the page.

    Args:
        path: The file.
        report: What it shows.

    Returns:
        The file and its size, to be printed.
    """
    return single_file.write(path, _page(report))


def render(report: Report) -> str:
    """Return the page as HTML; the same report gives the same bytes."""
    return single_file.render(_page(report))


def _page(report: Report) -> Page:
    return Page(
        title=f"soaes {report.record['scale']}",
        styles=("base.css", "page.css"),
        scripts=SCRIPTS,
        chinese="chinese.json",
        record=report.record,
        blocks=report.blocks,
    )
