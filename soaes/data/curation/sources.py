"""A user's data folder: its files by kind, and the digest that stands for its content in a recipe.

No file outside the folder is opened: not for its digest, and by no reader (`refusal`). Knows names
and bytes only. Imports no library, since every dry run needs a digest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from soaes.data import digests

KINDS = ("general", "corpus", "dialogue", "qa", "exam")
LABELS = "labels"  # of passages of corpus/, by which relevance is learned
ANNOTATION = "annotation"  # exports of reviews, and what people annotated elsewhere
PAIRS = "pairs"  # exports of reviews of near-duplicates
FOLDERS = (*KINDS, LABELS, ANNOTATION, PAIRS)
NO_FILES = hashlib.sha256().hexdigest()  # the digest of kinds without a file
MISNAMED = 0.8  # similarity from which another name is taken for a slip


def listing(root: str | Path) -> dict[str, list[str]]:
    """Return the files of each kind: paths relative to root, sorted, without hidden files.

    What cannot be read, such as a pipe or a dangling link, is listed, so that the report names it.
    """
    return {kind: sorted(_walk(Path(root), kind)) for kind in FOLDERS}


def unread_names(root: str | Path) -> list[str]:
    """Return what else lies in root, sorted, without hidden names: nobody reads it."""
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    return [name for name in names if name not in FOLDERS and not name.startswith(".")]


def check_names(root: str | Path) -> None:
    """Check that no folder or file in root is misnamed, as `dialogues/` or `General/` are.

    Raises:
        ValueError: if one has nearly the name of a kind that is missing.
    """
    missing = [kind for kind in FOLDERS if not (Path(root) / kind).is_dir()]
    slips = [
        f"{name} is not read, {kind}/ is"
        for name in unread_names(root)
        for kind in get_close_matches(Path(name).stem.lower(), missing, 1, MISNAMED)
    ]
    if slips:
        raise ValueError(f"data.root={root}: {'; '.join(slips)}: rename it, or move it elsewhere")


def check_documents(root: str | Path) -> None:
    """Check that there is a file of documents to train on.

    Raises:
        ValueError: corpus/ is missing or holds none.
    """
    if next(_walk(Path(root), "corpus"), None) is None:
        raise ValueError(
            f"data.root={root}: there is no file in corpus/, which holds the documents to train on "
            "(docs/own_data.md lists the formats); put them there, or use data=world"
        )


def refusal(root: str | Path, name: str) -> tuple[str, str]:
    """Tell why a file must not be opened.

    Args:
        root: The user's folder.
        name: A file of `listing`.

    Returns:
        The reason, one of few texts, and a detail; ("", "") for a file that may be opened.
    """
    path = Path(root) / name
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "file cannot be read", error.strerror or ""
    if _leads_out(root, name):
        return "link to outside the data root", "move or copy it, or link the whole of corpus/"
    if stat.S_ISDIR(mode):
        return "folder cannot be read", "change its permissions"
    if not stat.S_ISREG(mode):
        return "not a file", "a pipe, a socket or a device"
    return "", ""


def digest(root: str | Path, cache: Path | None = None, kinds: Sequence[str] = FOLDERS) -> str:
    """Return the SHA-256 over the sorted (relative path, SHA-256 of the file) of all files.

    Args:
        root: The user's folder.
        cache: Folder of a cache; a file whose size and times have not changed is not read again.
        kinds: Those whose files count.

    Raises:
        ValueError: A name in root is a slip; see `check_names`.
    """
    root = Path(root)
    check_names(root)
    files = listing(root)
    readable = []
    refused = []
    for name in (name for kind in kinds for name in files[kind]):
        reason, _ = refusal(root, name)
        if reason:
            refused.append(f"{name}: {reason}")
        else:
            readable.append(name)
    content = digests.digest(root, readable, cache)
    if not refused:
        return content
    names = "\0".join([content, *sorted(refused)])
    return hashlib.sha256(os.fsencode(names)).hexdigest()


def check_unchanged(root: str | Path, planned: str, kinds: Sequence[str] = FOLDERS) -> None:
    """Check that a folder is as it was when a job was planned.

    Args:
        root: The user's folder.
        planned: Its digest at that time.
        kinds: As of `digest`.

    Raises:
        ValueError: It changed.
    """
    now = digest(root, kinds=kinds)
    if now != planned:
        raise ValueError(
            f"the data under {root} changed since it was planned "
            f"({planned[:12]}, now {now[:12]}); run again"
        )


def _leads_out(root: str | Path, name: str) -> bool:
    """Tell whether a path below root is, by its links, elsewhere."""
    # A folder of a kind may itself be a link, such as corpus/ to a disk of its own.
    own = os.path.join(root, name.partition("/")[0])
    allowed = [root, own] if os.path.islink(own) else [root]
    real_path = os.path.realpath(os.path.join(root, name))
    folders = map(os.path.realpath, allowed)
    return all(os.path.commonpath((folder, real_path)) != folder for folder in folders)


def _walk(root: Path, kind: str) -> Iterator[str]:
    """Yield what lies below a folder. Links are followed, except those to a folder above.

    A link to a folder outside root is yielded itself: what lies there is not even listed.
    """
    real_root = os.path.realpath(root)
    pending: list[tuple[Path, frozenset[str]]] = [(root / kind, frozenset())]
    while pending:
        folder, above = pending.pop()
        real_path = os.path.realpath(folder)
        if real_path in above or not folder.is_dir():
            continue
        try:
            entries = list(os.scandir(folder))
        except OSError:
            yield os.path.relpath(folder, root)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = os.path.relpath(entry.path, root)
            is_folder = os.path.isdir(entry.path)  # False also for a link to itself
            if is_folder and not (entry.is_symlink() and _leads_out(root, name)):
                pending.append((Path(entry.path), above | {real_path, real_root}))
            else:
                yield name
