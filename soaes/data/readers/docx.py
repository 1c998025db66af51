"""Read .docx: paragraphs with their numbers, tables, text boxes, foot- and endnotes.

Insertions under change tracking are kept and deletions are left out: the text as it would be
accepted. Headers and footers are left out. Entities, networks and macros are never used.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers.base import Unreadable
from soaes.data.readers.docx_numbering import Numbering
from soaes.data.readers.zip_files import OLE, member

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT_WORD = "http://purl.oclc.org/ooxml/wordprocessingml/main"  # of "Strict Open XML"
LEFT_OUT = {"del", "moveFrom", "delText", "instrText", "pPr", "rPr", "rt", "sdtPr", "tblPr", "trPr"}
LEFT_OUT |= {"tcPr", "Fallback", "numPr", "sectPr", "tblGrid"}
CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}
NOTES = {"footnoteReference": "footnotes", "endnoteReference": "endnotes"}


def read(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the document of a Word file."""
    if path.read_bytes()[:4] == OLE:
        detail = "an old Word file (.doc) or an encrypted one; save it anew as .docx"
        raise Unreadable("not a docx file", detail)
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Unreadable("broken zip archive", f"{error}; save it anew") from None
    with archive:
        body = _xml(archive, "word/document.xml")
        if body is None:
            raise Unreadable("not a docx file", "it has no word/document.xml")
        styles = _xml(archive, "word/styles.xml")
        numbering = Numbering(_xml(archive, "word/numbering.xml"), styles)
        notes = {part: _xml(archive, f"word/{part}.xml") for part in NOTES.values()}
    writer = _Writer(numbering, notes)
    text = writer.text(body)
    yield SourceDocument(text, name, writer.title)


def _xml(archive: zipfile.ZipFile, name: str) -> etree._Element | None:
    """Return a part of the file; None where it has none of this name."""
    raw = member(archive, name)
    if raw is None:
        return None
    if b"<!DOCTYPE" in raw[:4096] or b"<!ENTITY" in raw:
        raise Unreadable("XML with entities", f"{name}: no Word file has them; save it anew")
    # Word's own namespace for both, so that one name finds an element
    raw = raw.replace(STRICT_WORD.encode(), WORD.encode())
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        return etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise Unreadable("broken XML", f"{name}: {error}"[:120]) from None


def tag(element: etree._Element) -> str:
    """Return the name of an element without its namespace; "" for comments."""
    name = element.tag
    return name.rpartition("}")[2] if isinstance(name, str) else ""


def attribute(element: etree._Element | None, name: str = "val") -> str:
    """Return an attribute of Word; "" where it is missing."""
    return "" if element is None else element.get(f"{{{WORD}}}{name}", "")


class _Writer:
    """Turns the elements of a file into lines."""

    def __init__(self, numbering: Numbering, notes: dict[str, etree._Element | None]) -> None:
        self.title = ""  # of the first paragraph in the style "Title"
        self._numbering = numbering
        self._notes = notes
        self._cited: list[tuple[str, str]] = []  # part and id of each note, as they are cited
        self._boxes: list[etree._Element] = []  # text boxes of the paragraph

    def text(self, body: etree._Element) -> str:
        """Return the text of the file, with the notes at the end."""
        lines = list(self._blocks(body))
        number = 0
        while number < len(self._cited):  # a note may cite another
            part, identifier = self._cited[number]
            number += 1
            note = self._note(part, identifier)
            if note is not None:
                lines.append(f"[{number}] " + " ".join(self._blocks(note)).strip())
        return "\n".join(lines)

    def _note(self, part: str, identifier: str) -> etree._Element | None:
        notes = self._notes[part]
        if notes is None:
            return None
        return next((note for note in notes if attribute(note, "id") == identifier), None)

    def _blocks(self, parent: etree._Element) -> Iterator[str]:
        """Yield the lines of paragraphs and tables, however deeply they are wrapped."""
        pending = [parent]
        while pending:
            element = pending.pop()
            name = tag(element)
            if name == "p":
                yield from self._paragraph(element)
            elif name == "tbl":
                yield from self._table(element)
            elif name not in LEFT_OUT:
                pending.extend(reversed(element))

    def _paragraph(self, paragraph: etree._Element) -> Iterator[str]:
        text = "".join(self._runs(paragraph))
        boxes, self._boxes = self._boxes, []
        properties = paragraph.find(f"{{{WORD}}}pPr")
        style = attribute(None if properties is None else properties.find(f"{{{WORD}}}pStyle"))
        if not self.title and style.lower() == "title":
            self.title = " ".join(text.split())
        if text.strip():
            text = self._numbering.label(properties) + text
        yield text
        for box in boxes:
            yield from self._blocks(box)

    def _runs(self, paragraph: etree._Element) -> Iterator[str]:
        """Yield the texts of a paragraph; its text boxes are put aside."""
        pending = list(reversed(paragraph))
        while pending:
            element = pending.pop()
            name = tag(element)
            if name == "t":
                yield element.text or ""
            elif name in CHARACTERS:
                yield CHARACTERS[name]
            elif name == "txbxContent":
                self._boxes.append(element)
            elif name in NOTES:
                self._cited.append((NOTES[name], attribute(element, "id")))
                yield f"[{len(self._cited)}]"
            elif name not in LEFT_OUT:
                pending.extend(reversed(element))

    def _table(self, table: etree._Element) -> Iterator[str]:
        """Yield a line for each row, with tabs between its cells."""
        for row in table.iter(f"{{{WORD}}}tr"):
            if _nearest(row, "tbl") is not table or _is_deleted(row):
                continue
            cells = [cell for cell in row.iter(f"{{{WORD}}}tc") if _nearest(cell, "tr") is row]
            yield "\t".join(" ".join(" ".join(self._blocks(cell)).split()) for cell in cells)


def _nearest(element: etree._Element, name: str) -> etree._Element | None:
    return next(element.iterancestors(f"{{{WORD}}}{name}"), None)


def _is_deleted(row: etree._Element) -> bool:
    return row.find(f"{{{WORD}}}trPr/{{{WORD}}}del") is not None
