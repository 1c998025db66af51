"""Write the page: one HTML file that needs nothing beside it and asks for nothing.

The template, styles and scripts lie in assets/ and are inlined. Data is JSON in elements that no
browser runs; large blocks are compressed. A content security policy allows the inlined scripts by
their digests and forbids every request. Knows no tables.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from soaes.pipeline.store import format_bytes, read_json, write_text
from soaes.report.page.record import Report

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    "vendor/d3.min.js",
    "vendor/plot.umd.min.js",
    "words.js",
    "dom.js",
    "data.js",
    "charts.js",
    "board.js",
    "tables.js",
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
    write_text(path, render(report))
    return f"{path} ({format_bytes(path.stat().st_size)})"


def render(report: Report) -> str:
    """Return the page as HTML; the same report gives the same bytes."""
    scripts = [(ASSETS / name).read_text("utf-8") for name in SCRIPTS]
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        "style-src": "'unsafe-inline'",  # charts style themselves
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True)
    return environment.get_template("page.html.jinja").render(
        title=f"soaes {report.record['scale']}",
        policy="; ".join(f"{key} {value}" for key, value in policy.items()),
        styles=_inline((ASSETS / "page.css").read_text("utf-8")),
        scripts=[_inline(script) for script in scripts],
        chinese=_inline(json_text(read_json(ASSETS / "chinese.json"))),
        record=_inline(json_text(report.record)),
        blocks=pack(report.blocks),
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _inline(text: str) -> Markup:
    """Mark our own text as safe inside `<script>` or `<style>`."""
    assert "</script" not in text and "</style" not in text and "<!--" not in text
    return Markup(text)


def json_text(value: Any) -> str:
    """Write JSON that ends no element, whatever strings are in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def pack(blocks: Mapping[str, Any]) -> dict[str, str]:
    """Compress blocks: gzip, as every browser unpacks it, in base64."""
    packed = {}
    for name, value in blocks.items():
        compressed = gzip.compress(json_text(value).encode(), compresslevel=9, mtime=0)
        packed[name] = base64.b64encode(compressed).decode()
    return packed
