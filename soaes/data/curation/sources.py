"""A user's data folder: its files by kind, and the digest that stands for its content in a recipe.

Knows names and bytes only. Imports no library, since every dry run needs a digest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from soaes.data import digests

KINDS = ("general", "corpus", "dialogue", "qa", "exam")
MISNAMED = 0.8  # similarity from which another name is taken for a slip


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
    names = [name for files in listing(root).values() for name in files]
    return digests.digest(root, names, cache)


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
