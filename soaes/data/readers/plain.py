"""Read .txt and .md: a file is a document.

A Markdown file may begin with front matter (`---`, lines of `title: ...`, `---`), which gives its
title, date and URL and is no part of the text; else its first heading is the title.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers import encodings
from soaes.data.readers.base import content, iso_date, unix_lines

FRONT_MATTER = re.compile(r"---[ \t]*\n((?:[^\n]*\n){1,100}?)---[ \t]*(?:\n|\Z)")
FIELD = re.compile(r"^(title|date|url|link)\s*:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
HEADING = re.compile(r"^#[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
HEADING_WITHIN = 2000  # characters


def read(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the document of a text file."""
    text, rejection = _text(path, name)
    if rejection:
        yield rejection
    yield SourceDocument(text, name)


def read_markdown(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the document of a Markdown file."""
    text, rejection = _text(path, name)
    if rejection:
        yield rejection
    fields: dict[str, str] = {}
    if matter := FRONT_MATTER.match(text):
        found = FIELD.findall(matter[1])
        fields = {key.lower(): value.strip("\"'") for key, value in found}
        text = text[matter.end() :]
    heading = HEADING.search(text, 0, HEADING_WITHIN)
    title = fields.get("title") or (heading[1] if heading else "")
    url = fields.get("url") or fields.get("link", "")
    yield SourceDocument(text, name, title, iso_date(fields.get("date", "")), url)


def _text(path: Path, name: str) -> tuple[str, Rejection | None]:
    decoded = encodings.decode(content(path))
    return encodings.repaired(unix_lines(decoded.text), name)
