"""Read .pdf: the text layer, page by page. No script of a file runs and no attachment is opened.

Running heads and page numbers stay, since cleaning judges them over all pages (`page_starts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pypdfium2

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers import encodings
from soaes.data.readers.base import MAX_BYTES, Unreadable, unix_lines

# What fonts leave that do not say which characters their glyphs are: control characters, private
# use (without U+F000-F0FF, the bullets of symbol fonts), replacement characters, "(cid:12)".
UNMAPPED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ue000-\uefff\uf100-\uf8ff\ufffd]|\(cid:\d+\)")
HYPHEN_AT_BREAK = re.compile("[\ufffe\x02]\r?\n?")  # a word that goes on in the next line
MAX_UNMAPPED = 0.01  # share of a page's characters
MAX_PAGES_LOST = 0.2  # share of the pages
OCR = "recognise its text first, as ocrmypdf does"


def read(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the document, and a rejection for each page that is left out."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("encrypted", "remove its password first") from None
        raise Unreadable("broken PDF file", f"{error}; save it anew") from None
    try:
        yield from _document(document, name)
    finally:
        document.close()


def _document(document: pypdfium2.PdfDocument, name: str) -> Iterator[SourceDocument | Rejection]:
    pages: list[str] = []
    page_starts: list[int] = []
    rejections: list[Rejection] = []
    num_chars = num_empty = 0
    for index in range(len(document)):
        try:
            page = _page(document, index)
        except Unreadable as error:
            rejections.append(Rejection(f"{name}#page {index + 1}", error.reason, error.detail))
            continue
        num_empty += not page.strip()
        page_starts.append(num_chars)
        pages.append(page)
        num_chars += len(page) + 1  # with the newline between pages
        if num_chars > MAX_BYTES:
            raise Unreadable("too large", f"more than {MAX_BYTES:,} characters; split it")
    num_pages = len(document)
    if num_empty == len(pages) and not rejections:
        raise Unreadable("no text layer", f"{num_pages:,} pages of pictures; {OCR}")
    if len(rejections) > MAX_PAGES_LOST * num_pages:
        first = rejections[0]
        detail = f"{len(rejections):,} of {num_pages:,} pages; {first.detail or OCR}"
        raise Unreadable(first.reason, detail)
    yield from rejections
    if 2 * num_empty > num_pages:
        detail = f"{num_empty:,} of {num_pages:,} pages; {OCR}"
        yield Rejection(name, "pages without text", detail)
    yield SourceDocument("\n".join(pages), name, page_starts=tuple(page_starts))


def _page(document: pypdfium2.PdfDocument, index: int) -> str:
    """Return the text of a page.

    Raises:
        Unreadable: It is broken, or its fonts do not say which characters their glyphs are.
    """
    try:
        page = document[index]
    except pypdfium2.PdfiumError as error:
        raise Unreadable("broken page", str(error)) from None
    try:
        text_page = page.get_textpage()
        text = text_page.get_text_range(errors="replace")
        text_page.close()
    except pypdfium2.PdfiumError as error:
        raise Unreadable("broken page", str(error)) from None
    finally:
        page.close()
    text = unix_lines(HYPHEN_AT_BREAK.sub("", text))
    num_unmapped = len(UNMAPPED.findall(text))
    if num_unmapped > MAX_UNMAPPED * len(text):
        detail = f"{num_unmapped:,} of {len(text):,} characters; {OCR}"
        raise Unreadable("font without characters", detail)
    encodings.check_mojibake(text)
    return text
