"""The store: one folder per recipe, complete under its final name, with a manifest of checksums.

Also the project's one implementation of each file operation: atomic writes, JSON files, checksums
and the check for free disk space. Knows files only: no Hydra, no torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from soaes.pipeline.recipe import PARENT, Recipe, revive
from soaes.pipeline.validation import nearest

# A folder that holds this file lists the checksums of its own files; whoever reads the folder
# checks them (soaes.data.shards). Such a folder survives a killed stage, which resumes from it.
CONTRACT = "contract.json"
PART = ".part"  # suffix of a file that is being written
# How a reason begins when nothing failed: Ctrl-C, or SIGTERM while Lightning trains.
INTERRUPTIONS = ("KeyboardInterrupt", "SIGTERMException")
RESULTS_ONLY = "results-only.txt"  # stands in a folder of unpacked archives (soaes.archive)
STAGE = re.compile(r"[a-z_0-9]+-[0-9a-f]{1,12}")  # the name of an output, or how it begins


def machine_lock() -> str:
    """Name the lock that what runs on this machine holds: speeds alone, all other stages shared."""
    return f"machine-{socket.gethostname()}"


# ------------------------------------------------------------------------------------- files


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for binary writing such that readers see the old content or the new, never half.

    The content goes to a temporary file in the same folder, which is flushed to disk and renamed to
    `path` when the block ends. If the block raises, the temporary file is removed and `path` keeps
    what it held.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with open(part, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk names no file
            error.filename, error.filename2 = str(path), None
        raise


def sync_folder(folder: Path) -> None:
    """Force a folder's names onto the disk, so that a crash loses no file that was made in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as handle:
        handle.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as a UTF-8 JSON file atomically, indented by one and with unescaped text."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file.

    Raises:
        ValueError: It is damaged; the message names it.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: ValueError) -> ValueError:
    """The error for a file of the store that cannot be parsed, with the way out."""
    return ValueError(
        f"{path} is damaged ({error}); delete its folder and run the command that built it again"
    )


def checksum(path: Path) -> str:
    """Return the SHA-256 digest of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_writable(folder: Path, otherwise: str) -> None:
    """Check that files can be written into a folder, which is made if there is none.

    Args:
        folder: The folder.
        otherwise: How to choose another, for the message.

    Raises:
        ValueError: They cannot: it is read-only, somebody else's, or no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder.absolute()} cannot be written ({error.strerror}); {otherwise}"
        ) from None


def check_room(folder: Path, needed: int, what: str, or_else: str) -> None:
    """Check that a disk has room before something large is written to it.

    Args:
        folder: Where the files will lie; it need not exist yet, but its parent must.
        needed: Bytes to be written.
        what: What is written, in the plural, for the message.
        or_else: What the user can do other than freeing space, for the message.

    Raises:
        ValueError: Fewer than `needed` bytes are free.
    """
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise ValueError(
            f"{what} need {format_bytes(needed)} more in {folder}, {format_bytes(free)} are free; "
            f"free some space, or {or_else}"
        )


def format_bytes(count: int) -> str:
    """Format a number of bytes in a unit that fits: `1.5 GB`, `36.0 MB`, `0.2 kB`."""
    if count >= 1e9:
        return f"{count / 1e9:,.1f} GB"
    if count >= 1e6:
        return f"{count / 1e6:,.1f} MB"
    return f"{count / 1e3:,.1f} kB"


# ------------------------------------------------------------------------------------- store


@dataclass(frozen=True)
class Store:
    """The folder of outputs.

    A folder under its final name is complete, because a single rename moves it there with its
    manifest. Outputs that are being built, or whose stage failed, lie under `unfinished/`.
    """

    root: Path

    def folder(self, name: str) -> Path:
        """Return the final folder of an output, which may not exist yet."""
        return self.root / name

    def unfinished(self, name: str) -> Path:
        """Return the folder in which an output is being built."""
        return self.root / "unfinished" / name

    def holds(self, name: str) -> bool:
        """Tell whether an output is complete."""
        return self.folder(name).is_dir()

    def failure(self, name: str) -> str:
        """Return why the last try to build an output failed; empty if it is there.

        Empty too if nobody has tried, or if it was interrupted.
        """
        path = self.unfinished(name) / "reason.txt"
        if self.holds(name) or not path.exists():
            return ""
        reason = path.read_text(encoding="utf-8").strip()
        return "" if reason.startswith(INTERRUPTIONS) else reason

    def names(self, stage: str) -> list[str]:
        """Return the names of a stage's complete outputs, oldest first."""
        paths = [path for path in self.root.glob(f"{stage}-*") if _stage_of(path) == stage]
        paths.sort(key=lambda path: path.stat().st_mtime)
        return [path.name for path in paths]

    def all_names(self) -> list[str]:
        """Return the names of all complete outputs: `<stage>-<12 hexadecimal digits>`, sorted."""
        return sorted(path.name for path in self.root.glob(f"*-{'[0-9a-f]' * 12}"))

    def full_name(self, start: str) -> str:
        """Return the name of the one complete output whose name begins so.

        Raises:
            ValueError: There is none, or there are several.
        """
        names = [name for name in self.all_names() if name.startswith(start)]
        if len(names) > 1:
            raise ValueError(f"{start}: {', '.join(names)} begin so; write more of its name")
        if not names:
            advice = nearest(start, self.all_names())
            raise ValueError(f"{start}: {self.root} has no such stage; {advice}")
        return names[0]

    def recipe(self, name: str) -> dict[str, Any]:
        """Read the written recipe of a complete output, parents by name."""
        return yaml.safe_load((self.folder(name) / "recipe.yaml").read_text("utf-8"))

    def manifest(self, name: str) -> dict[str, Any]:
        """Read the manifest of a complete output."""
        return read_json(self.folder(name) / "manifest.json")

    def metrics(self, name: str) -> dict[str, Any]:
        """Read the metrics of a complete output; empty for a stage that measures nothing."""
        path = self.folder(name) / "metrics.json"
        return read_json(path) if path.exists() else {}

    def check_keeps_models(self) -> None:
        """Check that stages can be built here, from outputs that are whole.

        Raises:
            ValueError: The folder holds results without models.
        """
        if (self.root / RESULTS_ONLY).exists():
            raise ValueError(
                f"{self.root} holds results without models (soaes.archive), and nothing is built "
                "in it; set runtime.store=FOLDER, or SOAES_STORE"
            )

    @contextmanager
    def lock(self, name: str, shared: bool = False) -> Iterator[None]:
        """Hold a named lock of the store; the kernel releases it however its holder ends.

        NFS grants a shared lock only where a file may be read, an exclusive one where it may be
        written.
        """
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "a+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield

    def is_locked(self, name: str) -> bool:
        """Tell whether somebody holds a named lock, without waiting for it.

        Raises:
            OSError: The file system has no locks.
        """
        path = self.root / ".locks" / name
        if not path.exists():
            return False
        is_ours = os.access(path, os.W_OK)  # a shared lock meets those who build all the same
        with open(path, "r+b") if is_ours else open(path, "rb") as handle:
            try:
                fcntl.flock(handle, (fcntl.LOCK_EX if is_ours else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def build(self, recipe: Recipe) -> Iterator[Path | None]:
        """Yield an unfinished folder to fill, or None if the output is already complete.

        When the block succeeds, the folder gets its final name. When it fails, the unfinished
        folder stays, with its log, for the reader. Two processes that ask for one recipe build it
        once: the second waits for the first, then finds the output.

        What a killed stage left is removed first, except what the stage can resume from: `resume`
        (removed by the stage that wrote it) and folders that have a contract.
        """
        with self.lock(recipe.name):
            if self.holds(recipe.name):
                yield None
                return
            out = self.unfinished(recipe.name)
            out.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(out)
            text = yaml.safe_dump(recipe.written, allow_unicode=True, sort_keys=False)
            write_text(out / "recipe.yaml", text)
            yield out
            os.replace(out, self.folder(recipe.name))

    def verify(self, name: str) -> None:
        """Check an output's files against its manifest.

        Raises:
            ValueError: A file is missing or differs from the manifest in size or checksum.
        """
        for path, entry in self.manifest(name)["files"].items():
            file = self.folder(name) / path
            if not _matches(file, entry):
                raise ValueError(
                    f"{file} is not what {name} was built as; "
                    f"delete the folder {name} and run again"
                )


def _stage_of(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _matches(file: Path, entry: dict[str, Any]) -> bool:
    """Compare a file with its entry; files under a contract have no checksum in the manifest."""
    if not file.exists() or file.stat().st_size != entry["bytes"]:
        return False
    return "sha256" not in entry or checksum(file) == entry["sha256"]


def _remove_leftovers(out: Path) -> None:
    """Empty an unfinished folder of everything that its stage does not resume from."""
    kept = {out / "resume", *_with_contract(out)}
    for path in out.iterdir():
        if path in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for part in out.rglob(f"*{PART}"):
        part.unlink()


def _with_contract(out: Path) -> list[Path]:
    """Return the folders of an output that keep checksums of their own."""
    return [path.parent for path in out.glob(f"*/{CONTRACT}")]


def read_recipe(store: Store, name: str) -> Recipe:
    """Read the recipe of a complete or unfinished output.

    Ancestors whose folders are gone are known by name only; all others are read in full.
    """
    written: dict[str, dict[str, Any]] = {}

    def collect(name: str) -> None:
        folder = store.folder(name) if store.holds(name) else store.unfinished(name)
        if name in written or not (folder / "recipe.yaml").exists():
            return
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
        for parent in _parent_names(recipe):
            collect(parent)
        written[name] = recipe  # after its parents

    collect(name)
    return revive(written)[name]


def _parent_names(plain: Any) -> Iterator[str]:
    if isinstance(plain, dict) and set(plain) == {PARENT}:
        yield plain[PARENT]
    elif isinstance(plain, dict):
        for inner in plain.values():
            yield from _parent_names(inner)
    elif isinstance(plain, list):
        for inner in plain:
            yield from _parent_names(inner)


def write_manifest(out: Path, **facts: Any) -> None:
    """Write an output's last file: its files with sizes and checksums, and facts about the build.

    Files that a contract lists are not read again: the manifest has the contract's checksum, and
    the contract has theirs.

    Args:
        out: The unfinished folder.
        **facts: What is recorded but not hashed: seconds, memory, commit, versions, machine.
    """
    under_contract = {
        folder / name
        for folder in _with_contract(out)
        for name in read_json(folder / CONTRACT)["files"]
    }
    files = {}
    for path in sorted(out.rglob("*")):
        if not path.is_file() or path.name in ("manifest.json", "log.txt"):
            continue
        entry: dict[str, Any] = {"bytes": path.stat().st_size}
        if path not in under_contract:
            entry["sha256"] = checksum(path)
        files[str(path.relative_to(out))] = entry
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(out / "manifest.json", {"files": files, "made": made, **facts})
