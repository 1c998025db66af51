"""Read the records of one file, and go on where a line is broken.

Knows JSON, CSV and UTF-8: not what a record means. Yields (line, value); a fault is a value of type Broken.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple


class ParseError(NamedTuple):
    """What cannot be read: a reason of few, and a detail for the eye."""

    reason: str
    detail: str = ""


ICONV = "GBK? convert it: iconv -f GB18030 -t UTF-8"
ParsedRows = Iterator[tuple[int, object]]
BOM = b"\xef\xbb\xbf"
ESCAPED = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of a byte that is not UTF-8


def text(path: Path) -> tuple[int, str | ParseError]:
    """A whole file as (line, text); the line is that of a broken byte."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return 0, ParseError("file cannot be read", error.strerror or "")
    return _decoded(data.removeprefix(BOM))


def objects(path: Path) -> ParsedRows:
    """The dicts of a JSON array, of one JSON object or of JSON lines, whichever the file holds."""
    try:
        with path.open("rb") as file:
            for line, value in _values(file, path.suffix == ".jsonl"):
                for item in value if isinstance(value, list) else [value]:
                    fits = isinstance(item, (dict, ParseError))
                    yield (
                        line,
                        item
                        if fits
                        else ParseError("not a JSON object", f"it is {type(item).__name__}"),
                    )
    except OSError as error:
        yield 0, ParseError("file cannot be read", error.strerror or "")


def table(path: Path) -> ParsedRows:
    """The rows of a CSV file with a head, as dicts with lower-case keys."""
    try:
        content = (
            path.read_bytes()
            .removeprefix(BOM)
            .replace(b"\0", b"")
            .decode("utf-8", "surrogateescape")
        )
    except OSError as error:
        yield 0, ParseError("file cannot be read", error.strerror or "")
        return
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    head = None
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, ParseError("broken CSV", str(error))
            continue
        if head is None:
            head = [name.strip().lower() for name in row]
        elif any(cell.strip() for cell in row):
            yield start, _row(head, row)


def _row(head: list[str], row: list[str]) -> dict[str, str] | ParseError:
    if ESCAPED.search("".join(row)):
        return ParseError("not UTF-8", ICONV)
    if len(row) != len(head):
        return ParseError("broken CSV", f"{len(row)} cells under {len(head)} columns")
    return dict(zip(head, row, strict=True))


def _values(file: io.BufferedReader, lines_only: bool) -> ParsedRows:
    """Line by line where the first line is JSON by itself (large files stay on disk), else the file as one text."""
    first = next((line for line in file if line.strip(BOM + b" \t\r\n")), None)
    if first is None:
        yield 1, ParseError("empty file")
        return
    array = first.lstrip(BOM + b" \t").startswith(b"[")
    alone = not isinstance(_parsed(1, first.removeprefix(BOM)), ParseError)
    file.seek(0)
    if alone or (lines_only and not array):
        yield from _lines(file)
        return
    content = file.read().removeprefix(BOM).decode("utf-8", "surrogateescape")
    yield from _array(content) if array else [(1, _whole(content))]


def _lines(file: io.BufferedReader) -> ParsedRows:
    head = next(file, b"").removeprefix(BOM)
    for number, line in enumerate(chain([head], file), start=1):
        if line.strip():
            yield number, _parsed(number, line)


def _parsed(number: int, line: bytes) -> object:
    _, content = _decoded(line)
    if isinstance(content, ParseError):
        return content
    return _whole(content)


def _whole(content: str) -> object:
    try:
        value, at = _decode(content, _past(content, 0))
    except (ValueError, RecursionError) as error:
        return _fault(error)[1]
    return (
        value
        if _past(content, at) == len(content)
        else ParseError("broken JSON", f"text after column {at}")
    )


def _array(content: str) -> ParsedRows:
    """Record by record, so that a truncated array keeps what stands before the break and names its line."""
    at, line, counted = content.index("[") + 1, 1, 0
    while not content.startswith("]", at := _past(content, at, " \t\r\n,")):
        line, counted = line + content.count("\n", counted, at), at
        try:
            value, at = _decode(content, at)
        except (ValueError, RecursionError) as error:
            there, fault = _fault(error)
            yield there or line, fault
            return
        yield line, value


def _decode(content: str, at: int) -> tuple[object, int]:
    """One value and where it ends; a value with NaN or a foreign byte in it is broken, the next can still be read."""
    literals: list[str] = []
    value, end = json.JSONDecoder(parse_constant=literals.append).raw_decode(content, at)
    if literals:
        return ParseError("broken JSON", f"{literals[0]} is not JSON"), end
    return ParseError("not UTF-8", ICONV) if ESCAPED.search(content, at, end) else value, end


def _past(content: str, at: int, skipped: str = " \t\r\n") -> int:
    while at < len(content) and content[at] in skipped:
        at += 1
    return at


def _decoded(data: bytes) -> tuple[int, str | ParseError]:
    try:
        return 1, data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1, ParseError("not UTF-8", ICONV)


def _fault(error: ValueError | RecursionError) -> tuple[int, ParseError]:
    if isinstance(error, RecursionError):
        return 0, ParseError("broken JSON", "nested too deeply")
    if isinstance(error, json.JSONDecodeError):
        return error.lineno, ParseError("broken JSON", f"{error.msg}, column {error.colno}")
    return 0, ParseError("broken JSON", str(error)[:100])
