"""Office files are zip archives: refuse parts that would expand beyond memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

from soaes.data.readers.base import MAX_BYTES, Unreadable

MAX_TABLES = 128 << 20  # bytes of all tables of a workbook together
OLE = b"\xd0\xcf\x11\xe0"  # with which old Office files begin, and encrypted new ones


def check_tables(path: Path) -> None:
    """Check that the XML of a workbook does not expand beyond MAX_TABLES; what is no zip passes.

    Raises:
        Unreadable: It does, or the archive is broken.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise Unreadable("broken zip archive", f"{error}; save it anew") from None
    tables = [item for item in members if item.filename.endswith((".xml", ".bin"))]
    _check_size(sum(item.file_size for item in tables), MAX_TABLES)


def member(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """Return the content of a member; None where the archive has none of this name.

    Raises:
        Unreadable: It is broken, encrypted or larger than MAX_BYTES.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        return None
    _check_size(info.file_size, MAX_BYTES)
    try:
        return archive.read(info)  # never more than its header says
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise Unreadable("broken zip archive", f"{name}: {error}"[:100]) from None


def _check_size(num_bytes: int, limit: int) -> None:
    if num_bytes > limit:
        detail = f"{num_bytes:,} bytes, of at most {limit:,}; split the document"
        raise Unreadable("expands beyond its limit", detail)
