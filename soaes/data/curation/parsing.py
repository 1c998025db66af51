"""Parse the records of one file, and continue after a broken one.

Knows JSON, CSV and encodings, and nothing of what a record means. Parsers yield (line, value),
where the value is a `ParseError` for what cannot be parsed. Nothing is passed over: what is no
part of a record is an error, and an error says what is lost with it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class ParseError:
    """What cannot be parsed.

    Attributes:
        reason: one of few texts, which are counted.
        detail: free text, which is only shown.
    """

    reason: str
    detail: str = ""


MAX_CELL = 32 << 20  # characters of a CSV cell
WHITESPACE = " \t\r\n"
SEPARATORS = WHITESPACE + ",[]"  # what may stand between the records of a JSON file
MAX_OPEN = 8  # arrays in arrays around a record
CHUNK = 1 << 20  # bytes
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of non-UTF-8 bytes
HAN = re.compile("[\u4e00-\u9fff]")
BROKEN_BYTES = ParseError("not UTF-8", "broken bytes in a file that is UTF-8 otherwise")


def objects(
    path: Path, max_bytes: int | None = None
) -> Iterator[tuple[int, dict[str, Any] | ParseError]]:
    """Yield the objects of a JSON file.

    They may stand one a line, in an array, in several arrays or in none.

    Args:
        path: The file.
        max_bytes: Of one line, and of an array over several lines; None: as memory allows.
    """
    try:
        if error := encoding_error(path):
            yield 0, error
            return
        with open(path, "rb") as handle:
            for line, value in _values(handle, max_bytes):
                if isinstance(value, (dict, ParseError)):
                    yield line, value
                else:
                    yield line, ParseError("not a JSON object", f"it is {type(value).__name__}")
    except OSError as error:
        yield 0, _unreadable(error)


def table(
    path: Path, max_bytes: int | None = None
) -> Iterator[tuple[int, dict[str, str] | ParseError]]:
    """Yield the rows of a CSV file with a header, as dicts with lower-case keys.

    Args:
        path: The file.
        max_bytes: Of one line; None: as memory allows.
    """
    csv.field_size_limit(MAX_CELL)
    try:
        if error := encoding_error(path):
            yield 0, error
            return
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
            yield from _table_rows(handle, max_bytes)
    except OSError as error:
        yield 0, _unreadable(error)


def _table_rows(
    handle: TextIO, max_bytes: int | None
) -> Iterator[tuple[int, dict[str, str] | ParseError]]:
    reader = csv.reader(_table_lines(handle, max_bytes), strict=True)
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


def _table_lines(handle: TextIO, max_bytes: int | None) -> Iterator[str]:
    """Yield the lines of a table; one that is too long ends it with an error."""
    limit = -1 if max_bytes is None else max_bytes
    while line := handle.readline(limit):
        if len(line) == max_bytes:
            raise csv.Error(f"a line of more than {limit:,} characters")
        yield line.replace("\0", "")


def _table_row(header: list[str], row: list[str]) -> dict[str, str] | ParseError:
    if ESCAPED_BYTE.search("".join(row)):
        return BROKEN_BYTES
    if len(row) != len(header):
        return ParseError("broken CSV", f"{len(row)} cells under {len(header)} columns")
    return dict(zip(header, row, strict=True))


# ------------------------------------------------------------------------------------- encodings


def encoding_error(path: Path) -> ParseError | None:
    """Judge the encoding of a file as a whole; None for UTF-8, also with a few broken bytes.

    Judged row by row, a GBK file would keep its rows in ASCII and misread those whose bytes happen
    to be UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    num_bytes = num_lines = num_nul = num_broken = num_valid = 0
    beginning = b""
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            beginning = beginning or chunk
            num_bytes += len(chunk)
            num_lines += chunk.count(b"\n")
            num_nul += chunk.count(b"\0")
            content = decoder.decode(chunk)
            if not content.isascii():
                broken = len(ESCAPED_BYTE.findall(content))
                non_ascii = len(content) - len(content.encode("ascii", "ignore"))
                num_broken += broken
                num_valid += non_ascii - broken
    is_utf16 = beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    has_many_nul = num_nul > num_bytes / 20
    is_other = num_broken > num_valid and num_broken >= num_bytes / 100
    if not (is_utf16 or has_many_nul or is_other):
        return None
    name = _guessed_encoding(beginning, has_many_nul)
    advice = f"{name}? convert it: iconv -f {name} -t UTF-8" if name else "convert it to UTF-8"
    return ParseError("not UTF-8", f"{advice}; all of its {max(1, num_lines):,} lines are lost")


def _guessed_encoding(beginning: bytes, has_many_nul: bool) -> str:
    """Return the name that iconv has for the likeliest encoding; "" where none is likely."""
    if beginning.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    if has_many_nul:  # the high bytes of ASCII characters
        is_little = beginning[1::2].count(0) > beginning[::2].count(0)
        return "UTF-16LE" if is_little else "UTF-16BE"
    shares = {}
    for name in ("GB18030", "UTF-16LE", "UTF-16BE"):
        content = beginning.decode(name, "ignore")
        shares[name] = len(HAN.findall(content)) / len(beginning)
    likeliest = max(shares, key=lambda name: shares[name])
    return likeliest if shares[likeliest] > 0.01 else ""


# ------------------------------------------------------------------------------------------ JSON


def _values(handle: io.BufferedReader, max_bytes: int | None) -> Iterator[tuple[int, object]]:
    """Yield the values of a file, line by line where a line is one by itself.

    Lines that are none, such as those of an indented array, are parsed together. So large files of
    JSON lines need not fit into memory.
    """
    lines = _lines(handle, max_bytes)
    block: list[str] = []  # lines that are no value by themselves
    start = 1  # number of its first line
    is_empty = True
    for number, line in enumerate(lines, start=1):
        if isinstance(line, ParseError):
            yield from _parsed("".join(block), start)
            yield number, line
            block, start, is_empty = [], number + 1, False
            continue
        line = line.removeprefix("\ufeff") if number == 1 else line
        starts_file = is_empty
        is_empty = is_empty and not line.strip(WHITESPACE)
        value = _value_of_line(line)
        if value is None:
            block.append(line)
            if starts_file and line.startswith("["):  # an array: the rest of the file is in it
                if error := _append_all(block, lines, max_bytes):
                    yield number, error
                    return
            continue
        yield from _parsed("".join(block), start)
        block = []
        start = number + 1
        for item in value if isinstance(value, list) else [value]:
            yield number, item
    if is_empty:
        yield 1, ParseError("empty file")
    yield from _parsed("".join(block), start, is_end=True)


def _lines(handle: io.BufferedReader, max_bytes: int | None) -> Iterator[str | ParseError]:
    """Yield the lines of a file, and an error in place of one that is too long."""
    limit = -1 if max_bytes is None else max_bytes
    while line := handle.readline(limit):
        num_bytes = len(line)
        if num_bytes == max_bytes:
            rest = line
            while not rest.endswith(b"\n") and (rest := handle.readline(CHUNK)):
                num_bytes += len(rest)
        if num_bytes > len(line):
            yield _too_large(f"a line of {num_bytes:,} bytes", limit)
        else:
            yield line.decode("utf-8", "surrogateescape")


def _append_all(
    block: list[str], lines: Iterator[str | ParseError], max_bytes: int | None
) -> ParseError | None:
    """Append the rest of a file to a block; return an error where that is too much."""
    num_bytes = sum(map(len, block))
    for line in lines:
        if isinstance(line, ParseError):
            return line
        block.append(line)
        num_bytes += len(line.encode("utf-8", "surrogateescape")) if max_bytes else 0
        if max_bytes and num_bytes > max_bytes:
            return _too_large("an array", max_bytes)
    return None


def _too_large(what: str, max_bytes: int) -> ParseError:
    advice = "write a record a line, as jq -c '.[]' does"
    return ParseError("too large", f"{what}, of at most {max_bytes:,}; {advice}")


def _value_of_line(line: str) -> object:
    """Parse a line that is an object or an array by itself; None for any other."""
    if not line.startswith(("{", "[")):
        return None
    try:
        value, end = _raw_value(line, 0)
    except (ValueError, RecursionError):
        return None
    return None if line[end:].strip(WHITESPACE + ",") else value


def _parsed(content: str, line: int, is_end: bool = False) -> Iterator[tuple[int, object]]:
    """Parse JSON values one after another: in arrays, between them, or in none.

    Brackets and commas between records carry no meaning beyond an array that is not closed. After
    a broken record, the parser goes on with the next that starts a line.

    Args:
        content: what to parse.
        line: number of its first line.
        is_end: whether the file ends with it.
    """
    first_line = line
    position = 0
    counted = 0  # newlines up to here are counted in `line`
    num_open = 0  # arrays
    num_broken = 0
    while True:
        start = _skip(content, position, SEPARATORS)
        separators = content[position:start]
        num_open += separators.count("[") - separators.count("]")
        if num_open > MAX_OPEN:
            num_open = 0
            num_broken += 1
            opened = content.index("[", position)
            error_line = line + content.count("\n", counted, opened)
            yield error_line, ParseError("broken JSON", "nested too deeply")
        if start == len(content):
            break
        line += content.count("\n", counted, start)
        counted = start
        try:
            value, position = _raw_value(content, start)
        except (ValueError, RecursionError) as error:
            num_broken += 1
            position = _next_record(content, start)
            num_lost = len(content) - start if position == len(content) else 0
            error_line, parse_error = _json_error(error, num_lost)
            yield error_line + first_line - 1 if error_line else line, parse_error
        else:
            yield line, value
    if is_end and num_open > 0 and not num_broken:
        line += content.count("\n", counted)
        detail = "an array is not closed: is the file cut short?"
        yield line, ParseError("broken JSON", detail)


def _next_record(content: str, start: int) -> int:
    """Return where the first record after a broken one starts, else the end.

    A record starts a line, and is not indented deeper than the broken one: an object within it is.
    """
    column = start - (content.rfind("\n", 0, start) + 1)
    begins = r"\n(?=[^\s\]}])" if column == 0 else rf"\n[ \t]{{0,{column}}}(?=[\[{{])"
    found = re.compile(begins).search(content, start)
    return found.end() if found else len(content)


def _raw_value(content: str, start: int) -> tuple[object, int]:
    """Parse one value, and return it with the position where it ends.

    A value with NaN, with two values of one key or with a byte that is not UTF-8 in it is broken;
    the next can still be parsed.
    """
    problems: list[str] = []

    def constant(name: str) -> None:
        problems.append(f"{name} is not JSON")

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            problems.extend(f"two values of {key}" for key, item in pairs if item != value[key])
        return value

    decoder = json.JSONDecoder(parse_constant=constant, object_pairs_hook=object_of)
    value, end = decoder.raw_decode(content, start)
    if problems:
        return ParseError("broken JSON", problems[0]), end
    if ESCAPED_BYTE.search(content, start, end):
        return BROKEN_BYTES, end
    return value, end


def _skip(content: str, position: int, skipped: str) -> int:
    while position < len(content) and content[position] in skipped:
        position += 1
    return position


def _unreadable(error: OSError) -> ParseError:
    return ParseError("file cannot be read", error.strerror or "")


def _json_error(error: ValueError | RecursionError, num_lost: int) -> tuple[int, ParseError]:
    """Return the line of an error, 0 where it is not known, and the error.

    Args:
        error: what the decoder raised.
        num_lost: characters that are lost with it, where no record after it is found.
    """
    if isinstance(error, RecursionError):
        return 0, ParseError("broken JSON", "nested too deeply")
    if not isinstance(error, json.JSONDecodeError):
        return 0, ParseError("broken JSON", str(error)[:100])
    lost = f"; {num_lost:,} characters are lost" if num_lost else ""
    return error.lineno, ParseError("broken JSON", f"{error.msg}, column {error.colno}{lost}")
