"""The store: its folder and disk, locks that are held, stages that were left unfinished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from soaes.doctor.finding import Case, Check, Finding, fault, listed, ok, warning
from soaes.pipeline.progress import last_checkpoint
from soaes.pipeline.scheduler import MEGABYTE
from soaes.pipeline.store import Store, format_bytes
from soaes.report.layout import counted

LITTLE_DISK = 1e9  # bytes, for outputs
ELSEWHERE = "set runtime.store=FOLDER, or SOAES_STORE"


def folder(case: Case) -> Iterator[Finding]:
    """Tell whether the store is there and can be written."""
    root = case.store.root.absolute()
    if root.exists() and not root.is_dir():
        yield fault("store", f"{root} is no folder", ELSEWHERE)
    elif not os.access(_existing(root), os.W_OK):
        yield warning("store", f"{root} is read-only, nothing can be built in it", ELSEWHERE)
    elif root.exists():
        names = case.store.all_names()
        yield ok("store", f"{root}, {counted(len(names), 'output')}")
        yield from _damaged(case.store, names)
    elif case.store_is_named:
        remedy = "correct runtime.store or SOAES_STORE if it is misspelt; else soaes.run makes it"
        yield warning("store", f"there is none at {root}", remedy)
    else:
        yield ok("store", f"none yet at {root}, soaes.run makes it")


def _damaged(store: Store, names: list[str]) -> Iterator[Finding]:
    """Name the outputs that are not as a build leaves them."""
    found = []
    for name in names:
        for file in ("manifest.json", "recipe.yaml"):
            if not (store.folder(name) / file).exists():
                remedy = "delete the folder and run again"
                found.append(fault("store", f"{store.folder(name)} has no {file}", remedy))
    yield from listed(found, "damaged outputs", "delete them as the ones above")


def disk(case: Case) -> Iterator[Finding]:
    """Compare the store's free disk space with what the stages to run are known to write."""
    root = case.store.root.absolute()
    free = shutil.disk_usage(_existing(root)).free
    value = f"{format_bytes(free)} are free for the store"
    needed = 0.0
    if case.plan is not None:
        needed = case.plan.estimate.disk_bytes
    if needed:
        value += f", the known stages to run write {format_bytes(round(needed))}"
    remedy = f"free some space, or {ELSEWHERE}"
    if free < max(MEGABYTE, needed):
        yield fault("disk", value, remedy)
    elif free < LITTLE_DISK:
        yield warning("disk", value, remedy)
    else:
        yield ok("disk", value)


def _existing(path: Path) -> Path:
    """Return the nearest folder above that exists, or the path itself."""
    while not path.exists():
        path = path.parent
    return path


def locks(case: Case) -> Iterator[Finding]:
    """Count the locks that are held: each is a build under way, since the kernel frees others."""
    names = sorted(path.name for path in (case.store.root / ".locks").glob("*"))
    try:
        held = [name for name in names if case.store.is_locked(name)]
    except OSError as error:
        value = f"this disk has no file locks ({error.strerror}), two builds would disturb another"
        yield fault("locks", value, f"{ELSEWHERE}, to a disk of this machine")
        return
    if held:
        yield ok("locks", f"{len(held)} held by a build under way: {', '.join(held)}")
    else:
        yield ok("locks", "none is held, no build is under way")


def unfinished(case: Case) -> Iterator[Finding]:
    """Name the stages that failed, or that a killed run has left."""
    found = []
    paths = sorted((case.store.root / "unfinished").glob("*"))
    for path in paths:
        if not case.store.is_locked(path.name):
            found.append(_left_behind(case.store, path))
    yield from listed(found, "unfinished stages", f"`ls {case.store.root / 'unfinished'}` has all")
    if not found:
        yield ok("unfinished", f"{counted(len(paths), 'stage')} under way, none was left behind")


def _left_behind(store: Store, path: Path) -> Finding:
    if reason := store.failure(path.name):
        value = f"{path.name} failed: {' '.join(reason.split())}"
        remedy = f"the run's command again tries it anew; {path}/error.txt and log.txt say more"
        return warning("unfinished", value, remedy)
    step = last_checkpoint(store, path.name)
    remedy = "the run's command again starts it anew"
    if step is not None:
        remedy = f"the run's command again resumes it from step {step:,}"
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    remedy += f"; or delete {path}, which frees {format_bytes(size)}"
    return warning("unfinished", f"{path.name} was interrupted", remedy)


CHECKS: dict[str, Check] = {
    "store": folder,
    "disk": disk,
    "locks": locks,
    "unfinished": unfinished,
}
