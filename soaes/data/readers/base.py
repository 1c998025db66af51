"""What all readers share: limits, the error for what cannot be read, titles and dates."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import chain
from pathlib import Path, PurePosixPath

# Of one document as it lies in its file: a text, an HTML page, a JSON record. What is larger is a
# dump of many, and would not fit into the 300 MB that reading may take.
MAX_BYTES = 32 << 20
# Of one document: cleaning takes some 400 bytes of memory a line beside the text itself.
MAX_LINES = 300_000
LINE_BREAKS = "\n\r\f\v\x85\u2028\u2029"
OTHER_FORMATS = (
    (b"%PDF-", "a PDF file"),
    (b"PK\x03\x04", "a zip archive or an Office file"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)
DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)(?:年|[-./])(1[0-2]|0?[1-9])(?:月|[-./])(3[01]|[12]\d|0?[1-9])(?!\d)"
)
COMPACT_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?!\d)")


class Unreadable(ValueError):
    """A file, or a part of one, that cannot be read.

    Args:
        reason: One of few texts, which are counted.
        detail: Free text, which is only shown; it names the way out where there is one.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def content(path: Path) -> bytes:
    """Return the content of a file that holds one document of text.

    Raises:
        Unreadable: It is empty, too large, or of another format than its name says.
    """
    num_bytes = path.stat().st_size
    if num_bytes > MAX_BYTES:
        detail = f"{num_bytes:,} bytes, of at most {MAX_BYTES:,} a document; split it"
        raise Unreadable("too large", f"{detail}, or write a document a line of JSON")
    raw = path.read_bytes()
    if not raw.strip():
        raise Unreadable("empty file")
    for mark, name in OTHER_FORMATS:
        if raw.startswith(mark):
            raise Unreadable("not text", f"it is {name}; give it the suffix of what it is")
    return raw


def check_num_lines(text: str) -> None:
    """Check that a document's lines are not too many for cleaning.

    Raises:
        Unreadable: They are.
    """
    if len(text) <= MAX_LINES:
        return
    num_breaks = sum(map(text.count, LINE_BREAKS))
    if num_breaks > MAX_LINES:
        detail = f"{num_breaks:,}, of at most {MAX_LINES:,} a document; split it"
        raise Unreadable("too many lines", f"{detail}, or write a document a line of JSON")


@contextmanager
def memory_limit(num_bytes: int) -> Iterator[None]:
    """Refuse the process more memory than this beyond what it has, where the system can.

    A library that checks its allocations then fails, where it would take all memory of the machine.
    """
    try:
        num_pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except OSError:  # no Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = num_pages * resource.getpagesize() + num_bytes
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def unix_lines(text: str) -> str:
    """Return a text whose lines end with a newline alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def iso_date(text: str) -> str:
    """Return the first date of a text as YYYY-MM-DD; "" where there is none.

    It reads 2018年12月21日, 2018-12-21, 2018/12/21, 2018.12.21 and 20181221; 30 February is none.
    """
    for found in chain(DATE.finditer(text), COMPACT_DATE.finditer(text)):
        year, month, day = map(int, found.groups())
        try:
            return date(year, month, day).isoformat()
        except ValueError:  # no day of the calendar
            continue
    return ""


def name_title(name: str) -> str:
    """Return the title of a document whose file names it: the file's name without suffixes."""
    path = PurePosixPath(name)
    while path.suffix and len(path.suffix) <= 6 and not path.suffix[1:].isdigit():
        path = path.with_suffix("")
    return path.name
