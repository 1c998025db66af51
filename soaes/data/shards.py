"""Token records in shard files, written so that a killed writer resumes, read memory-mapped.

A folder's contract.json lists every other file with its size and checksum, and carries a checksum
of its own. A file enters the contract once it is complete on disk. This module knows files and
records; what a record means is known to soaes.data.teacher_store.

# R rows, R1 = R + 1, N tokens.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from soaes.pipeline.store import (
    CONTRACT,
    PART,
    atomic_write,
    check_room,
    checksum,
    format_bytes,
)

SHARD_BYTES = 64 << 20  # approximate size of a shard: the most that a killed writer loses
OFFSETS = "offsets.npy"

Contract = dict[str, Any]  # the settings of a store, and "files": name -> {"bytes", "sha256"}


class Writer:
    """Fills a folder file by file.

    Files that a killed writer of the same settings completed are kept. A folder that was written
    under different settings is emptied first.

    Args:
        folder: the folder to fill; it is created if it does not exist.
        settings: JSON values that determine the content of all files of the folder.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.contract: Contract = {**settings, "files": {}}
        folder.mkdir(parents=True, exist_ok=True)
        for partial_file in folder.glob(f"*{PART}"):
            partial_file.unlink()
        expected = json.loads(json.dumps(settings))
        previous = _read_contract(folder)
        if previous and expected == {key: previous.get(key) for key in expected}:
            self.contract = previous
        elif any(folder.iterdir()):
            print(
                f"{folder} holds nothing that a writer with the settings {expected} "
                "could resume from: it is written anew",
                flush=True,
            )
            shutil.rmtree(folder)
            folder.mkdir()

    def check_room(self, sizes: dict[str, int], or_else: str) -> None:
        """Check that the disk can hold the files that are not there yet.

        Args:
            sizes: bytes of each file, by name.
            or_else: what else the user can do than free disk space.

        Raises:
            ValueError: if the free space does not suffice.
        """
        needed = sum(count for name, count in sizes.items() if name not in self.contract["files"])
        check_room(self.folder, needed, "the shards", or_else)

    def put(self, name: str, make: Callable[[], np.ndarray]) -> None:
        """Write the array that `make` returns, unless a killed writer left the file complete.

        Raises:
            OSError: if the file cannot be written.
        """
        files = self.contract["files"]
        if name in files and _is_intact(self.folder / name, files[name]):
            return
        files[name] = _write(self.folder / name, *_npy_parts(make()))
        self.seal()

    def seal(self, **more: Any) -> None:
        """Write the contract, with further entries that are known only now."""
        self.contract |= more
        _write(self.folder / CONTRACT, _sealed(self.contract))


class Shards:
    """Reads the records of any rows. Each shard is checked when it is first read."""

    def __init__(self, folder: Path, contract: Contract) -> None:
        self.folder = folder
        self.files = contract["files"]
        self.rows_per_shard = contract["rows_per_shard"]
        self.offsets_R1 = np.array(self.array(OFFSETS))
        self.opened: dict[int, np.ndarray] = {}

    def array(self, name: str) -> np.ndarray:
        """Return a file of the folder as a memory-mapped array.

        Raises:
            ValueError: if the file is missing or differs from what was written.
        """
        path = self.folder / name
        if name not in self.files or not _is_intact(path, self.files[name]):
            raise _damaged(path)
        return np.load(path, mmap_mode="r")

    def read(self, row_indices: np.ndarray) -> np.ndarray:
        """Return the records of all tokens of the given rows, [N], row after row."""
        parts = [self._row_bytes(int(row)) for row in row_indices]
        if not parts:
            parts = [self._shard(0)[:0]]
        return np.concatenate(parts).reshape(-1).view(self.record)

    def _row_bytes(self, row: int) -> np.ndarray:
        shard, row_in_shard = divmod(row, self.rows_per_shard)
        first_offset = self.offsets_R1[row - row_in_shard]
        start, stop = self.offsets_R1[[row, row + 1]] - first_offset
        return self._shard(shard)[start:stop]

    def _shard(self, shard: int) -> np.ndarray:
        """Return a shard as [N, bytes of a record]: numpy copies records field by field, slowly."""
        if shard not in self.opened:
            records = self.array(shard_name(shard))
            self.record = records.dtype
            as_bytes = np.asarray(records).view(np.uint8)
            self.opened[shard] = as_bytes.reshape(len(records), self.record.itemsize)
        return self.opened[shard]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the opened shards: a memory map would be copied in full.

        Another process opens, and checks, its own.
        """
        return {**self.__dict__, "opened": {}}


def rows_per_shard(rows: int, tokens: int, token_bytes: int) -> int:
    """Return the rows of a shard, from shapes alone, so that all writers cut alike."""
    return max(1, SHARD_BYTES * rows // (max(1, tokens) * token_bytes))


def shard_name(shard: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{shard:05}.npy"


def read_contract(folder: Path) -> Contract:
    """Read a folder's contract, and check that every file exists and has its size.

    Checksums of the files are checked when they are read.

    Raises:
        ValueError: if the contract or a file is damaged or missing.
    """
    contract = _read_contract(folder)
    if contract is None:
        raise _damaged(folder / CONTRACT)
    for file_name, entry in contract["files"].items():
        path = folder / file_name
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            raise _damaged(path)
    return contract


def _read_contract(folder: Path) -> Contract | None:
    """Return the contract of a folder, or None if there is none or a bit of it has changed."""
    try:
        content = (folder / CONTRACT).read_bytes()
        contract = json.loads(content)
        contract.pop("sha256")
        return contract if _sealed(contract) == content else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        # A flipped bit can cause any of these.
        return None


def _sealed(contract: Contract) -> bytes:
    """Return the bytes of contract.json, with a checksum of the contract itself."""
    digest = hashlib.sha256(json.dumps(contract).encode()).hexdigest()
    return json.dumps({**contract, "sha256": digest}, indent=1).encode()


def _is_intact(path: Path, entry: dict[str, Any]) -> bool:
    if not path.exists() or path.stat().st_size != entry["bytes"]:
        return False
    return checksum(path) == entry["sha256"]


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is missing or not what was written; "
        f"delete the folder {path.parent.parent} and run again"
    )


def _npy_parts(array: np.ndarray) -> tuple[bytes, memoryview]:
    """Return the header and the data of a .npy file; the data are not copied."""
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    fields = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue(), array.reshape(-1).view(np.uint8).data


def _write(path: Path, *content: bytes | memoryview) -> dict[str, Any]:
    """Write a file atomically. Return the size and checksum of what was to be written."""
    size = sum(map(len, content))
    digest = hashlib.sha256()
    try:
        with atomic_write(path) as handle:
            for part in content:
                handle.write(part)
                digest.update(part)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(
            number,
            f"{path} of {format_bytes(size)} could not be written: {os.strerror(number)}; "
            "a new run resumes at this file",
        ) from error
    return {"bytes": size, "sha256": digest.hexdigest()}
