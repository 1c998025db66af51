"""The digest of a user's files, which stands for their content in a recipe.

A file is read once: its digest is kept in a cache beside the store and counts while size, times and
inode are as they were. Knows names and bytes only; imports the standard library alone, since every
dry run needs digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

# A file that was written less than this many nanoseconds ago may be written again within one tick
# of its clock, so its times do not prove that it is unchanged.
SETTLED_NS = 2_000_000_000

CHUNK = 64 << 20  # bytes of a file that one thread hashes
PIECE = 1 << 20  # bytes that a thread reads at once
LONG = 4 << 30  # bytes that take long enough to read for a word about it
MAX_THREADS = 16


@dataclass(frozen=True)
class CachedDigest:
    """The digest of a file, valid while its size, times and inode are as stated."""

    size: int  # bytes
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def chunked_sha256(path: Path) -> str:
    """Return the SHA-256 over the SHA-256 of each chunk of a file: every byte counts.

    Chunks are hashed side by side, as fast as the disk or all cores allow.
    """
    starts = range(0, max(1, path.stat().st_size), CHUNK)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        digests = pool.map(lambda start: _chunk_sha256(path, start), starts)
        return hashlib.sha256(b"".join(digests)).hexdigest()


def _chunk_sha256(path: Path, start: int) -> bytes:
    state = hashlib.sha256()
    with open(path, "rb") as handle:
        handle.seek(start)
        for _ in range(CHUNK // PIECE):
            state.update(handle.read(PIECE))
    return state.digest()


def digest(
    root: Path,
    names: Iterable[str],
    cache: Path | None,
    hash_file: Callable[[Path], str] = sha256,
) -> str:
    """Return the SHA-256 over the sorted (relative path, digest of the file) of some files.

    Reading gigabytes is announced on stderr, and what was read is kept if the user breaks it off.

    Args:
        root: The folder.
        names: Files, relative to root.
        cache: Folder of a cache; a file that has not changed is not read again.
        hash_file: `sha256`, or `chunked_sha256` for files of gigabytes.
    """
    cached = _load_cache(cache, root)
    digests: dict[str, CachedDigest] = {}
    names = sorted(set(names))
    _announce(root, names, cached)
    try:
        for name in names:
            digests[name] = _file_digest(root / name, cached.get(name), hash_file)
    finally:
        # other files of the folder have digests of theirs
        _save_cache(cache, root, cached | digests)
    total = hashlib.sha256()
    for name in names:
        # A path holds no NUL byte, so the concatenation is unambiguous.
        total.update(os.fsencode(name) + b"\0" + digests[name].sha256.encode())
    return total.hexdigest()


def _announce(root: Path, names: Iterable[str], cached: dict[str, CachedDigest]) -> None:
    """Say that files are read, if they are large and were not read before."""
    size = 0
    for name in names:
        try:
            size += 0 if name in cached else os.stat(root / name).st_size
        except OSError:
            pass  # it counts as unreadable
    if size >= LONG:
        print(f"{root}: reading {size / 1e9:,.0f} GB for their digest, once", file=sys.stderr)


def _file_digest(
    path: Path, cached: CachedDigest | None, hash_file: Callable[[Path], str]
) -> CachedDigest:
    try:
        state = os.stat(path)
        stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        if cached is not None:
            known = (cached.size, cached.mtime_ns, cached.ctime_ns, cached.inode)
            if stamp == known:
                return cached
        content = hash_file(path)
    except OSError:
        return CachedDigest(0, 0, 0, 0, "unreadable")  # the stage that reads the file reports it
    last_change = max(state.st_mtime_ns, state.st_ctime_ns)
    if time.time_ns() - last_change <= SETTLED_NS:
        return CachedDigest(0, 0, 0, 0, content)  # read again next time
    return CachedDigest(*stamp, content)


def _cache_path(cache: Path, root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return cache / f"digests-{name}.json"


def _load_cache(cache: Path | None, root: Path) -> dict[str, CachedDigest]:
    if cache is None:
        return {}
    try:
        entries = json.loads(_cache_path(cache, root).read_text(encoding="utf-8"))
        return {name: CachedDigest(**entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # no cache yet, or a damaged one: the files are read


def _save_cache(cache: Path | None, root: Path, digests: dict[str, CachedDigest]) -> None:
    if cache is None:
        return
    path = _cache_path(cache, root)
    part = path.with_suffix(f".{os.getpid()}")
    entries = {name: asdict(entry) for name, entry in digests.items()}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(entries), encoding="utf-8")
        part.replace(path)
    except OSError:
        pass  # the store cannot be written: the files are read again next time
