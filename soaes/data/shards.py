"""Records of tokens in shards on disk: written one by one, so that a killed writer goes on, and read through memory maps.

A folder's contract.json names every other file with its size and checksum, and carries a checksum of its own. A file enters it once
it is whole on disk. Knows files and records; what a record says is the teacher store's.

# R rows, R1 = R + 1, N tokens."""

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

from soaes.pipeline.store import CONTRACT, check_room, checksum, format_bytes

SHARD_BYTES = 64 << 20  # about; what is lost at most when a writer is killed
OFFSETS = "offsets.npy"


class Writer:
    """A folder being filled. `facts` is what all of its files have in common: a folder with others is not gone on with."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.contract = folder, {**facts, "files": {}}
        folder.mkdir(parents=True, exist_ok=True)
        for half in folder.glob("*.part"):
            half.unlink()
        left, begun = _left(folder), json.loads(json.dumps(facts))
        if left and begun == {key: left.get(key) for key in begun}:
            self.contract = left
        elif any(folder.iterdir()):
            print(
                f"{folder} holds nothing that a writer of {begun} could go on with: it is written anew",
                flush=True,
            )
            shutil.rmtree(folder)
            folder.mkdir()

    def check_room(self, sizes: dict[str, int], or_else: str) -> None:
        """ValueError if the disk cannot hold those of the files, name -> bytes, that are not there yet."""
        needed = sum(count for name, count in sizes.items() if name not in self.contract["files"])
        check_room(self.folder, needed, "the shards", or_else)

    def put(self, name: str, make: Callable[[], np.ndarray]) -> None:
        """Write the array that `make` gives, unless a killed writer left it whole. OSError if it cannot be written."""
        if name in self.contract["files"] and _whole(
            self.folder / name, self.contract["files"][name]
        ):
            return
        self.contract["files"][name] = _replace(self.folder / name, *_npy(make()))
        self.seal()

    def seal(self, **more: Any) -> None:
        """Write the contract, with what is known only now."""
        self.contract |= more
        _replace(self.folder / CONTRACT, _sealed(self.contract))


class Shards:
    """The records of any rows. State: the shards opened so far, each checked at its first read."""

    def __init__(self, folder: Path, contract: dict[str, Any]) -> None:
        self.folder, self.files, self.rows_per_shard = (
            folder,
            contract["files"],
            contract["rows_per_shard"],
        )
        self.offsets_R1 = np.array(self.array(OFFSETS))
        self.opened: dict[int, np.ndarray] = {}

    def array(self, name: str) -> np.ndarray:
        """A file of the folder, memory-mapped. ValueError if it is not what was written."""
        path = self.folder / name
        if name not in self.files or not _whole(path, self.files[name]):
            raise _broken(path)
        return np.load(path, mmap_mode="r")

    def read(self, which: np.ndarray) -> np.ndarray:
        """[N] records of the tokens of rows `which`, row after row."""
        parts = [self._bytes(int(row)) for row in which] or [self._shard(0)[:0]]
        return np.concatenate(parts).reshape(-1).view(self.record)

    def _bytes(self, row: int) -> np.ndarray:
        shard, at = divmod(row, self.rows_per_shard)
        start, stop = self.offsets_R1[[row, row + 1]] - self.offsets_R1[row - at]
        return self._shard(shard)[start:stop]

    def _shard(self, shard: int) -> np.ndarray:
        """[N, bytes of a record]: as bytes, since numpy copies records field by field."""
        if shard not in self.opened:
            records = self.array(name(shard))
            self.record = records.dtype
            self.opened[shard] = (
                np.asarray(records).view(np.uint8).reshape(len(records), self.record.itemsize)
            )
        return self.opened[shard]

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens, and checks, its own: a pickled map would be a copy."""
        return {**self.__dict__, "opened": {}}


def rows_per_shard(rows: int, tokens: int, token_bytes: int) -> int:
    """A function of shapes alone, so that all writers cut alike."""
    return max(1, SHARD_BYTES * rows // (max(1, tokens) * token_bytes))


def name(shard: int) -> str:
    return f"shard-{shard:05}.npy"


def contract(folder: Path) -> dict[str, Any]:
    """ValueError if the folder's contract is not what was written, or a file of it is missing or has another size."""
    told = _left(folder)
    if told is None:
        raise _broken(folder / CONTRACT)
    for file, entry in told["files"].items():
        if not (folder / file).exists() or (folder / file).stat().st_size != entry["bytes"]:
            raise _broken(folder / file)
    return told


def _left(folder: Path) -> dict[str, Any] | None:
    """The contract in a folder; None where there is none, or not to the bit what was written."""
    try:
        text = (folder / CONTRACT).read_bytes()
        told = json.loads(text)
        told.pop("sha256")
        return told if _sealed(told) == text else None
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
    ):  # a flipped bit makes any of these of it
        return None


def _sealed(told: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return json.dumps({**told, "sha256": digest}, indent=1).encode()


def _whole(path: Path, entry: dict[str, Any]) -> bool:
    return (
        path.exists()
        and path.stat().st_size == entry["bytes"]
        and checksum(path) == entry["sha256"]
    )


def _broken(path: Path) -> ValueError:
    return ValueError(
        f"{path} is missing or not what was written; delete the folder {path.parent.parent} and run again"
    )


def _npy(array: np.ndarray) -> tuple[bytes, memoryview]:
    """A .npy file: its header and its data, which are not copied."""
    array, header = np.ascontiguousarray(array), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data


def _replace(path: Path, *content: bytes | memoryview) -> dict[str, Any]:
    """A file under its name is whole, whenever the process ends. Returns its size and checksum, taken of what was to be written."""
    part, count, digest = (
        path.with_name(f"{path.name}.part"),
        sum(map(len, content)),
        hashlib.sha256(),
    )
    try:
        with open(part, "wb") as handle:
            for piece in content:
                handle.write(piece)
                digest.update(piece)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        number = error.errno or errno.EIO
        raise OSError(
            number,
            f"{path} of {format_bytes(count)} could not be written: {os.strerror(number)}; "
            "a new run goes on at this file",
        ) from error
    return {"bytes": count, "sha256": digest.hexdigest()}
