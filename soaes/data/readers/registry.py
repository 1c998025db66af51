"""Choose the reader of a file by its suffix, and turn all that fails into named rejections.

A reader is a function `read(path, name)` that yields `SourceDocument` and `Rejection`, or raises
`Unreadable`. Readers are named by dotted path. Each is imported when the first file of its format
is read, and its library with it, so that a folder of texts loads none for PDF. Users register their
own in the same way; its code then runs with the rights of whoever builds the stage.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from soaes.data.curation.document import Reader, Rejection, SourceDocument
from soaes.data.readers import compressed
from soaes.data.readers.base import Unreadable

PACKAGE = "soaes.data.readers"
READERS = {
    ".txt": f"{PACKAGE}.plain.read",
    ".md": f"{PACKAGE}.plain.read_markdown",
    ".html": f"{PACKAGE}.html.read",
    ".htm": f"{PACKAGE}.html.read",
    ".pdf": f"{PACKAGE}.pdf.read",
    ".docx": f"{PACKAGE}.docx.read",
    ".jsonl": f"{PACKAGE}.records.read_json",
    ".json": f"{PACKAGE}.records.read_json",
    ".csv": f"{PACKAGE}.records.read_csv",
    ".xlsx": f"{PACKAGE}.workbook.read",
    ".xls": f"{PACKAGE}.workbook.read",
    ".ods": f"{PACKAGE}.workbook.read",
    ".parquet": f"{PACKAGE}.parquet.read",
}
LOCK = "~$"  # how the name of the file begins by which Office marks one as open
OFFICE = "convert it: soffice --headless --convert-to"
WAYS_OUT = {
    ".doc": f"{OFFICE} docx",
    ".rtf": f"{OFFICE} docx",
    ".odt": f"{OFFICE} docx",
    ".wps": "save it as .docx in WPS Office",
    ".et": "save it as .xlsx in WPS Office",
    ".ofd": "save it as PDF in an OFD viewer",
    ".ppt": f"{OFFICE} pdf",
    ".pptx": f"{OFFICE} pdf",
    ".epub": "convert it to .html or .txt",
    ".mht": "save it as .html",
    ".zip": "unpack it",
    ".rar": "unpack it",
    ".7z": "unpack it",
    ".tar": "unpack it",
    ".tgz": "unpack it",
}


class Readers:
    """The readers by suffix.

    Args:
        own: Readers of the user, by suffix with or without its dot; each a dotted path such as
            `mine.read_sql`. They stand before ours.

    Raises:
        ValueError: There is no such function.
    """

    def __init__(self, own: Mapping[str, str] | None = None) -> None:
        self._paths = dict(READERS)
        self._loaded: dict[str, Reader] = {}
        for suffix, path in (own or {}).items():
            key = "." + suffix.lower().removeprefix(".")
            self._paths[key] = path
            self._loaded[path] = _load(path)

    @property
    def suffixes(self) -> list[str]:
        """The suffixes that are read, in alphabetical order."""
        return sorted(self._paths)

    def read(self, path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
        """Yield what a file holds; whatever fails is a rejection.

        Args:
            path: The file.
            name: Its name relative to the data root, with which sources begin.
        """
        file = PurePosixPath(name)
        compression = file.suffix.lower()
        try:
            if file.name.startswith(LOCK):
                raise Unreadable("lock file", "Office made it and forgot it; it is no document")
            if compression in compressed.SUFFIXES:
                reader = self._reader(PurePosixPath(file.stem).suffix.lower())
                with compressed.expanded(path, compression) as content:
                    yield from _guarded(reader, content, name)
            else:
                yield from _guarded(self._reader(compression), path, name)
        except Unreadable as error:
            yield Rejection(name, error.reason, error.detail)

    def _reader(self, suffix: str) -> Reader:
        if suffix not in self._paths:
            way_out = WAYS_OUT.get(suffix, "convert it, or name a reader in data.read.readers")
            raise Unreadable("file type not read", f"{suffix or 'no suffix'}: {way_out}")
        path = self._paths[suffix]
        if path not in self._loaded:
            self._loaded[path] = _load(path)
        return self._loaded[path]


def _guarded(reader: Reader, path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield what a reader yields; what it raises is a rejection."""
    try:
        for found in reader(path, name):
            if not isinstance(found, (SourceDocument, Rejection)):
                kind = type(found).__name__
                raise TypeError(f"it yields {kind}: yield SourceDocument or Rejection")
            yield found
    except Unreadable as error:
        yield Rejection(name, error.reason, error.detail)
    except OSError as error:
        yield Rejection(name, "file cannot be read", error.strerror or "")
    except ImportError as error:  # every file of the format would be lost
        raise ValueError(f"{name}: {error}; install what its reader needs") from None
    except Exception as error:  # a library, or a user's reader, on a file it was not made for
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        yield Rejection(name, "reader failed", detail)


def _load(path: str) -> Reader:
    module, _, function = path.rpartition(".")
    try:
        reader: Reader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"data.read.readers: {path} cannot be imported ({error}); name a function as "
            "PACKAGE.MODULE.FUNCTION, whose folder is the current one or in PYTHONPATH"
        ) from None
    return reader
