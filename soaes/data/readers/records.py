"""Read documents that are records: .jsonl, .json and .csv; `document` serves other tables too.

A record is a document. Its text is in the column `text` or `content`; COLUMNS has the names of
the others. Files are read record by record, so that they need not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path

from soaes.data.curation import parsing
from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.curation.parsing import ParseError
from soaes.data.readers import encodings
from soaes.data.readers.base import MAX_BYTES, iso_date, unix_lines

# In order of precedence; compared in lower case.
COLUMNS = {
    "text": ("text", "content", "正文", "内容", "文本"),
    "title": ("title", "标题", "题名", "名称"),
    "date": ("date", "publish_date", "published", "日期", "发布日期", "公布日期"),
    "url": ("url", "link", "链接", "网址"),
}
NO_TEXT = "no text or content field"
NOT_COUNTED = ("id",)
EMPTY: tuple[object, ...] = (None, "", [], {})


def read_json(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the documents of a JSON file: objects one a line, in arrays or one after another."""
    with encodings.utf8_file(path) as converted:
        for line, record in parsing.objects(converted, MAX_BYTES):
            yield document(record, f"{name}:{line}" if line else name)


def read_csv(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the documents of a CSV file with a header."""
    with encodings.utf8_file(path) as converted:
        for line, record in parsing.table(converted, MAX_BYTES):
            found = document(record, f"{name}:{line}" if line else name)
            yield found
            if isinstance(found, Rejection) and found.reason == NO_TEXT:
                return  # the same holds for every row


def document(record: Mapping[str, object] | ParseError, source: str) -> SourceDocument | Rejection:
    """Return the document of a record.

    Args:
        record: Values by column.
        source: The file and the place of the record in it.
    """
    if isinstance(record, ParseError):
        return Rejection(source, record.reason, record.detail)
    fields = {str(key).strip().lower(): value for key, value in record.items()}
    chosen = {part: _first_filled(fields, names) for part, names in COLUMNS.items()}
    text = fields.get(chosen["text"])
    if text is None and not fields.keys().isdisjoint(COLUMNS["text"]):
        return Rejection(source, "no text")
    if not isinstance(text, str):
        return Rejection(source, NO_TEXT, f"fields: {', '.join(map(str, record))[:80]}")
    read = {*chosen.values(), *NOT_COUNTED}
    unread = [key for key, value in fields.items() if key not in read and value not in EMPTY]
    return SourceDocument(
        unix_lines(text),
        source,
        title=_cell(fields.get(chosen["title"])),
        date=iso_date(_cell(fields.get(chosen["date"]))),
        url=_cell(fields.get(chosen["url"])),
        unread=tuple(unread),
    )


def _first_filled(fields: Mapping[str, object], names: tuple[str, ...]) -> str:
    """Return the first of the names that holds something, else the first that is there at all."""
    present = [name for name in names if fields.get(name) is not None]
    filled = [name for name in present if fields[name] not in EMPTY]
    return next(iter(filled or present), "")


def _cell(value: object) -> str:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return " ".join(str(value).split()) if isinstance(value, (str, int)) else ""
