"""A page that is one HTML file, needs nothing beside it and asks for nothing.

The template, styles and scripts lie in assets/ and are inlined. Data is JSON in elements that no
browser runs; large blocks are compressed. A content security policy allows the inlined scripts by
their digests and forbids every request. Knows nothing of what a page shows.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from soaes.pipeline.store import format_bytes, read_json, write_text

ASSETS = Path(__file__).parent / "assets"
FRAME = (
    "language.js",
    "theme.js",
    "dom.js",
    "data.js",
    "frame.js",
)  # scripts that every page begins with
PLOTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "plots.js")  # of pages with charts


@dataclass(frozen=True)
class Page:
    """What makes a page.

    Attributes:
        title: Its name, in the browser's tab and at the top.
        styles: Style sheets in assets/, in order.
        scripts: Scripts in assets/, in order.
        chinese: File in assets/ with the translations of texts of the data.
        record: All that it shows at once, as JSON.
        blocks: Large values by name, which it unpacks when they are looked at.
    """

    title: str
    styles: Sequence[str]
    scripts: Sequence[str]
    chinese: str
    record: Mapping[str, Any]
    blocks: Mapping[str, Any]


def write(path: Path, page: Page) -> str:
    """Write a page.

    Returns:
        The file and its size, to be printed.
    """
    write_text(path, render(page))
    return f"{path} ({format_bytes(path.stat().st_size)})"


def render(page: Page) -> str:
    """Return a page as HTML; the same page gives the same bytes."""
    styles = [(ASSETS / name).read_text("utf-8") for name in page.styles]
    scripts = [(ASSETS / name).read_text("utf-8") for name in page.scripts]
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
        title=page.title,
        policy="; ".join(f"{key} {value}" for key, value in policy.items()),
        styles=_inline("\n".join(styles)),
        scripts=[_inline(script) for script in scripts],
        chinese=_inline(json_text(read_json(ASSETS / page.chinese))),
        record=_inline(json_text(page.record)),
        blocks=pack(page.blocks),
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
