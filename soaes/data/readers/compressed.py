"""Expand a .gz or .zst file into a temporary file, within a limit."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from soaes.data.readers.base import Unreadable

SUFFIXES = (".gz", ".zst")
# Text rarely shrinks to a fiftieth; what expands further was made to fill the disk.
MAX_RATIO = 200
ALWAYS_ALLOWED = 4 << 20  # bytes that any file may expand to
MAX_WINDOW = 128 << 20  # bytes of memory that a .zst file may ask for
CHUNK = 1 << 20


@contextmanager
def expanded(path: Path, suffix: str) -> Iterator[Path]:
    """Give the content of a compressed file as a file; it is removed at the end.

    Args:
        path: The compressed file.
        suffix: `.gz` or `.zst`.

    Raises:
        Unreadable: It is broken, cut short, or expands beyond the limit.
    """
    limit = max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "expanded"
        try:
            with open(path, "rb") as raw, _opened(raw, suffix) as source:
                _copy(source, target, limit)
        except EOFError:
            raise Unreadable("cut short", "its compressed end is missing; fetch it anew") from None
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise Unreadable("broken compression", str(error)[:100]) from None
        yield target


def _opened(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    return cast(BinaryIO, decompressor.stream_reader(raw, read_across_frames=True))


def _copy(source: BinaryIO, target: Path, limit: int) -> None:
    num_bytes = 0
    with open(target, "wb") as handle:
        while chunk := source.read(CHUNK):
            num_bytes += len(chunk)
            if num_bytes > limit:
                detail = f"beyond {limit:,} bytes, {MAX_RATIO} times its size; expand it yourself"
                raise Unreadable("expands beyond its limit", detail)
            handle.write(chunk)
