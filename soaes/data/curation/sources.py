"""A user's data folder: its files by kind, and the digest that stands for its content in a recipe.

Knows names and bytes only. Imports the standard library alone, since every dry run needs a digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

KINDS = ("general", "corpus", "dialogue", "qa", "exam")
MISNAMED = 0.8  # similarity from which another name is taken for a slip
# A file that was written less than this many nanoseconds ago may be written again within one tick
# of its clock, so its times do not prove that it is unchanged.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class CachedDigest:
    """The digest of a file, valid while its size and times are as stated."""

    size: int  # bytes
    mtime_ns: int
    ctime_ns: int
    sha256: str


def listing(root: str | Path) -> dict[str, list[str]]:
    """Return the files of each kind: paths relative to root, sorted, without hidden files.

    A dangling link is listed, so that the report names it.
    """
    return {kind: sorted(_walk(Path(root), kind)) for kind in KINDS}


def unread_names(root: str | Path) -> list[str]:
    """Return what else lies in root, sorted, without hidden names: nobody reads it."""
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    return [name for name in names if name not in KINDS and not name.startswith(".")]


def check_names(root: str | Path) -> None:
    """Check that no folder or file in root is misnamed, as `dialogues/` or `General/` are.

    Raises:
        ValueError: if one has nearly the name of a kind that is missing.
    """
    missing = [kind for kind in KINDS if not (Path(root) / kind).is_dir()]
    slips = [
        f"{name} is not read, {kind}/ is"
        for name in unread_names(root)
        for kind in get_close_matches(Path(name).stem.lower(), missing, 1, MISNAMED)
    ]
    if slips:
        raise ValueError(f"data.root={root}: {'; '.join(slips)}: rename it, or move it elsewhere")


def digest(root: str | Path, cache: Path | None = None) -> str:
    """Return the SHA-256 over the sorted (relative path, SHA-256 of the file) of all files.

    Args:
        root: the user's folder.
        cache: folder of a cache; a file whose size and times have not changed is not read again.

    Raises:
        ValueError: if a name in root is a slip; see `check_names`.
    """
    root = Path(root)
    check_names(root)
    cached = _load_cache(cache, root)
    digests: dict[str, CachedDigest] = {}
    for names in listing(root).values():
        for name in names:
            digests[name] = _file_digest(root / name, cached.get(name))
    _save_cache(cache, root, digests)
    total = hashlib.sha256()
    for name in sorted(digests):
        # A path holds no NUL byte, so the concatenation is unambiguous.
        total.update(os.fsencode(name) + b"\0" + digests[name].sha256.encode())
    return total.hexdigest()


def _walk(root: Path, kind: str) -> Iterator[str]:
    """Yield the files below a folder. Links are followed, except those to a folder above."""
    pending: list[tuple[Path, frozenset[str]]] = [(root / kind, frozenset())]
    while pending:
        folder, above = pending.pop()
        real_path = os.path.realpath(folder)
        if real_path in above or not folder.is_dir():
            continue
        for entry in os.scandir(folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                pending.append((Path(entry.path), above | {real_path}))
            elif entry.is_file() or entry.is_symlink():
                # Not sockets and pipes: reading those would block forever.
                yield os.path.relpath(entry.path, root)


def _file_digest(path: Path, cached: CachedDigest | None) -> CachedDigest:
    try:
        state = os.stat(path)
        stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if cached and stamp == (cached.size, cached.mtime_ns, cached.ctime_ns):
            return cached
        with open(path, "rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return CachedDigest(0, 0, 0, "unreadable")  # the stage that reads the file reports it
    last_change = max(state.st_mtime_ns, state.st_ctime_ns)
    if time.time_ns() - last_change <= SETTLED_NS:
        return CachedDigest(0, 0, 0, sha256)  # read again next time
    return CachedDigest(*stamp, sha256)


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
    cache.mkdir(parents=True, exist_ok=True)
    path = _cache_path(cache, root)
    part = path.with_suffix(f".{os.getpid()}")
    entries = {name: asdict(entry) for name, entry in digests.items()}
    part.write_text(json.dumps(entries), encoding="utf-8")
    part.replace(path)
