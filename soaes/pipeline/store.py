"""The store is the folder of outputs: one folder a recipe, complete under its final name, its files checked by a manifest.

Knows files and checksums only: no Hydra, no torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from soaes.pipeline.recipe import PARENT, Recipe, revive

CONTRACT = "contract.json"  # a folder of an output that has one keeps its files' checksums itself, and its reader checks them (data.shards)


@dataclass(frozen=True)
class Store:
    """The folder of outputs. A folder under its final name is complete: it came there by one rename, manifest included."""

    root: Path

    def folder(self, name: str) -> Path:
        return self.root / name

    def unfinished(self, name: str) -> Path:
        return self.root / "unfinished" / name

    def holds(self, name: str) -> bool:
        return self.folder(name).is_dir()

    def names(self, stage: str) -> list[str]:
        """Complete folders of a stage, oldest first."""
        found = [
            path for path in self.root.glob(f"{stage}-*") if path.name.rpartition("-")[0] == stage
        ]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]

    def recipe(self, name: str) -> dict[str, Any]:
        return yaml.safe_load((self.folder(name) / "recipe.yaml").read_text())

    def manifest(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder(name) / "manifest.json").read_text())

    def metrics(self, name: str) -> dict[str, Any]:
        path = self.folder(name) / "metrics.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def lock(self, name: str, shared: bool = False) -> Iterator[None]:
        """Hold a named lock of the store; the kernel frees it when its holder dies, however it dies."""
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "a") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield

    @contextmanager
    def build(self, recipe: Recipe) -> Iterator[Path | None]:
        """Give an unfinished folder to fill, with the recipe in it, or None if the output is there; on success it gets its final name.

        Two processes that ask for one recipe build it once: the second waits, then finds it. What a killed stage left
        is cleared first but for that from which it may go on: `resume`, which whoever writes there removes at the end, and
        folders with a contract. A failing stage leaves its unfinished folder, with its log, for the reader."""
        with self.lock(recipe.name):
            if self.holds(recipe.name):
                yield None
                return
            out = self.unfinished(recipe.name)
            out.mkdir(parents=True, exist_ok=True)
            for left in set(out.iterdir()) - {out / "resume", *_with_contract(out)}:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            (out / "recipe.yaml").write_text(
                yaml.safe_dump(recipe.written, allow_unicode=True, sort_keys=False)
            )
            yield out
            os.replace(out, self.folder(recipe.name))

    def verify(self, name: str) -> None:
        """ValueError if a file of an output is missing, has another size, or fails the checksum that the manifest has of it."""
        for path, entry in self.manifest(name)["files"].items():
            file = self.folder(name) / path
            if (
                not file.exists()
                or file.stat().st_size != entry["bytes"]
                or "sha256" in entry
                and checksum(file) != entry["sha256"]
            ):
                raise ValueError(
                    f"{file} is not what {name} was built as; delete the folder {name} and run again"
                )


def read_recipe(store: Store, name: str) -> Recipe:
    """The recipe of a complete or unfinished folder, with as much of its ancestry as is still there."""
    written: dict[str, dict[str, Any]] = {}

    def collect(name: str) -> None:
        folder = store.folder(name) if store.holds(name) else store.unfinished(name)
        if name in written or not (folder / "recipe.yaml").exists():
            return
        text = yaml.safe_load((folder / "recipe.yaml").read_text())
        for parent in _names(text):
            collect(parent)
        written[name] = text  # after its parents

    collect(name)
    return revive(written)[name]


def _names(plain: Any) -> Iterator[str]:
    if isinstance(plain, dict) and set(plain) == {PARENT}:
        yield plain[PARENT]
    elif isinstance(plain, (dict, list)):
        for inner in plain.values() if isinstance(plain, dict) else plain:
            yield from _names(inner)


def _with_contract(out: Path) -> list[Path]:
    """The folders of an output that keep checksums of their own."""
    return [path.parent for path in out.glob(f"*/{CONTRACT}")]


def check_room(folder: Path, needed: int, what: str, or_else: str) -> None:
    """ValueError if fewer than `needed` bytes are free on the disk of `folder`, which itself need not be there yet."""
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise ValueError(
            f"{what} need {format_bytes(needed)} more in {folder}, {format_bytes(free)} are free; free some space, or {or_else}"
        )


def format_bytes(count: int) -> str:
    """Bytes in a unit that fits: `1.5 GB`, `36.0 MB`, `0.2 kB`."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if count >= unit), (1e3, "kB")
    )
    return f"{count / unit:,.1f} {name}"


def checksum(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_manifest(out: Path, **facts: Any) -> None:
    """The last file of an output: its files with sizes and checksums, and what is recorded but not hashed.

    What a contract vouches for is not read once more: the manifest has the contract's checksum, and the contract has theirs."""
    vouched = {
        folder / name
        for folder in _with_contract(out)
        for name in json.loads((folder / CONTRACT).read_text())["files"]
    }
    files = {
        str(path.relative_to(out)): {"bytes": path.stat().st_size}
        | ({} if path in vouched else {"sha256": checksum(path)})
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "log.txt")
    }
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    (out / "manifest.json").write_text(
        json.dumps({"files": files, "made": made, **facts}, indent=1, ensure_ascii=False)
    )
