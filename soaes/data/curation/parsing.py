"""Parse the records of one file, and continue after a broken line.

Knows JSON, CSV and UTF-8, and nothing of what a record means. Parsers yield (line, value), where
the value is a `ParseError` for what cannot be parsed.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ParseError:
    """What cannot be parsed.

    Attributes:
        reason: one of few texts, which are counted.
        detail: free text, which is only shown.
    """

    reason: str
    detail: str = ""


BOM = b"\xef\xbb\xbf"
WHITESPACE = " \t\r\n"
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of non-UTF-8 bytes
NOT_UTF8 = ParseError("not UTF-8", "GBK? convert it: iconv -f GB18030 -t UTF-8")


def text(path: Path) -> tuple[int, str | ParseError]:
    """Read a text file.

    Returns:
        (line, content); for a file that is not UTF-8, the line of the first broken byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return 0, _unreadable(error)
    return _decoded(content.removeprefix(BOM))


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any] | ParseError]]:
    """Yield the objects of a JSON array, of a single JSON object, or of JSON lines."""
    try:
        with open(path, "rb") as handle:
            for line, value in _values(handle, lines_only=path.suffix == ".jsonl"):
                items = value if isinstance(value, list) else [value]
                for item in items:
                    if isinstance(item, (dict, ParseError)):
                        yield line, item
                    else:
                        detail = f"it is {type(item).__name__}"
                        yield line, ParseError("not a JSON object", detail)
    except OSError as error:
        yield 0, _unreadable(error)


def table(path: Path) -> Iterator[tuple[int, dict[str, str] | ParseError]]:
    """Yield the rows of a CSV file with a header, as dicts with lower-case keys."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        yield 0, _unreadable(error)
        return
    content = raw.removeprefix(BOM).replace(b"\0", b"").decode("utf-8", "surrogateescape")
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, ParseError("broken CSV", str(error))
            continue
        if header is None:
            header = [name.strip().lower() for name in row]
        elif any(cell.strip() for cell in row):
            yield line, _table_row(header, row)


def _table_row(header: list[str], row: list[str]) -> dict[str, str] | ParseError:
    if ESCAPED_BYTE.search("".join(row)):
        return NOT_UTF8
    if len(row) != len(header):
        return ParseError("broken CSV", f"{len(row)} cells under {len(header)} columns")
    return dict(zip(header, row, strict=True))


def _values(handle: io.BufferedReader, lines_only: bool) -> Iterator[tuple[int, object]]:
    """Parse line by line where the first line is JSON by itself, else the file as a whole.

    Line by line, large files need not fit into memory.
    """
    blank = BOM + WHITESPACE.encode()
    first = next((line for line in handle if line.strip(blank)), None)
    if first is None:
        yield 1, ParseError("empty file")
        return
    is_array = first.lstrip(BOM + b" \t").startswith(b"[")
    first_is_json = not isinstance(_parsed_line(first.removeprefix(BOM)), ParseError)
    handle.seek(0)
    if first_is_json or (lines_only and not is_array):
        yield from _lines(handle)
        return
    content = handle.read().removeprefix(BOM).decode("utf-8", "surrogateescape")
    if is_array:
        yield from _array(content)
    else:
        yield 1, _parsed(content)


def _lines(handle: io.BufferedReader) -> Iterator[tuple[int, object]]:
    first = next(handle, b"").removeprefix(BOM)
    for number, line in enumerate(chain([first], handle), start=1):
        if line.strip():
            yield number, _parsed_line(line)


def _parsed_line(line: bytes) -> object:
    _, content = _decoded(line)
    return content if isinstance(content, ParseError) else _parsed(content)


def _parsed(content: str) -> object:
    """Parse a text that is one JSON value."""
    try:
        value, end = _raw_value(content, _skip(content, 0))
    except (ValueError, RecursionError) as error:
        return _json_error(error)[1]
    if _skip(content, end) != len(content):
        return ParseError("broken JSON", f"text after column {end}")
    return value


def _array(content: str) -> Iterator[tuple[int, object]]:
    """Parse an array record by record.

    A truncated array keeps the records before the break, and the error names its line.
    """
    position = content.index("[") + 1
    line = 1
    counted = 0  # newlines up to here are counted in `line`
    while True:
        position = _skip(content, position, WHITESPACE + ",")
        if content.startswith("]", position):
            return
        line += content.count("\n", counted, position)
        counted = position
        try:
            value, position = _raw_value(content, position)
        except (ValueError, RecursionError) as error:
            error_line, parse_error = _json_error(error)
            yield error_line or line, parse_error
            return
        yield line, value


def _raw_value(content: str, start: int) -> tuple[object, int]:
    """Parse one value, and return it with the position where it ends.

    A value with NaN or a byte that is not UTF-8 in it is broken; the next can still be parsed.
    """
    constants: list[str] = []
    decoder = json.JSONDecoder(parse_constant=constants.append)
    value, end = decoder.raw_decode(content, start)
    if constants:
        return ParseError("broken JSON", f"{constants[0]} is not JSON"), end
    if ESCAPED_BYTE.search(content, start, end):
        return NOT_UTF8, end
    return value, end


def _skip(content: str, position: int, skipped: str = WHITESPACE) -> int:
    while position < len(content) and content[position] in skipped:
        position += 1
    return position


def _decoded(raw: bytes) -> tuple[int, str | ParseError]:
    try:
        return 1, raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return raw.count(b"\n", 0, error.start) + 1, NOT_UTF8


def _unreadable(error: OSError) -> ParseError:
    return ParseError("file cannot be read", error.strerror or "")


def _json_error(error: ValueError | RecursionError) -> tuple[int, ParseError]:
    """Return the line of an error, 0 where it is not known, and the error."""
    if isinstance(error, RecursionError):
        return 0, ParseError("broken JSON", "nested too deeply")
    if isinstance(error, json.JSONDecodeError):
        return error.lineno, ParseError("broken JSON", f"{error.msg}, column {error.colno}")
    return 0, ParseError("broken JSON", str(error)[:100])
