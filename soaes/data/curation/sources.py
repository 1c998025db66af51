"""A user's data folder: which files it holds, of which kind, and the digest that stands for it in a recipe.

Knows names and bytes only: not what a file says. Imports the standard library alone: every plan asks for a digest.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

KINDS = ("general", "corpus", "dialogue", "qa", "exam")
SETTLED = (
    2_000_000_000  # ns: a file written just now may be written again within one tick of its clock
)


def listing(root: str | Path) -> dict[str, list[str]]:
    """Paths relative to root by kind, sorted; hidden files are none. A dangling link is listed, so that it is named."""
    return {kind: sorted(_walk(Path(root), kind)) for kind in KINDS}


def digest(root: str | Path, cache: Path | None = None) -> str:
    """Content digest: sha256 over the sorted (relative path, sha256 of the file).

    With `cache`, a folder, a file whose size and times have not changed since is not read again.
    """
    root = Path(root)
    known = _load(cache, root)
    fresh = {
        name: _remembered(root / name, known.get(name))
        for names in listing(root).values()
        for name in names
    }
    _save(cache, root, fresh)
    total = hashlib.sha256()
    for name in sorted(fresh):
        total.update(
            os.fsencode(name) + b"\0" + fresh[name][-1].encode()
        )  # no path holds a NUL: unambiguous
    return total.hexdigest()


def _walk(root: Path, kind: str) -> Iterator[str]:
    """Follows links to folders, each folder once on a path: a link to an ancestor ends there."""
    pending = [(root / kind, frozenset())]
    while pending:
        folder, above = pending.pop()
        real = os.path.realpath(folder)
        if real in above or not folder.is_dir():
            continue
        for entry in os.scandir(folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                pending.append((Path(entry.path), above | {real}))
            elif (
                entry.is_file() or entry.is_symlink()
            ):  # neither sockets nor pipes: reading those would wait for ever
                yield os.path.relpath(entry.path, root)


def _remembered(path: Path, entry: list | None) -> list:
    """[size, mtime, ctime, sha256], from the cache where the first three still hold."""
    try:
        state = os.stat(path)
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        if entry and entry[:3] == stamp:
            return entry
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return [0, 0, 0, "unreadable"]  # the stage that reads the file names it
    settled = time.time_ns() - max(stamp[1:]) > SETTLED
    return [*(stamp if settled else [0, 0, 0]), content]


def _place(cache: Path, root: Path) -> Path:
    return (
        cache
        / f"digests-{hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]}.json"
    )


def _load(cache: Path | None, root: Path) -> dict[str, list]:
    try:
        known = json.loads(_place(cache, root).read_text()) if cache else {}
    except (OSError, ValueError):  # no cache yet, or a torn one: both mean reading the files
        return {}
    return known if isinstance(known, dict) else {}


def _save(cache: Path | None, root: Path, fresh: dict[str, list]) -> None:
    if cache is None:
        return
    cache.mkdir(parents=True, exist_ok=True)
    place = _place(cache, root)
    part = place.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(fresh))
    part.replace(place)
