"""Checkpoints of a training stage: a killed one goes on from its last good one, and ends bit for bit as if nothing had happened (on a CPU).

Knows files, and a Lightning trainer's state between two steps. Which rows the next step reads is the data module's to say."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from soaes.pipeline.store import checksum


def write(folder: Path, state: dict[str, Any]) -> None:
    """A checkpoint under its final name is whole: it comes there by one rename. OSError if it cannot be written; those before it stay."""
    making, final = folder / "making", folder / f"step-{state['step']:08d}"
    try:
        for path in (
            making,
            final,
        ):  # what a kill left half-written, and a damaged one that was passed over
            shutil.rmtree(path, ignore_errors=True)
        making.mkdir(parents=True)
        with open(making / "state.pt", "wb") as handle:
            torch.save(state, handle)
            _onto_disk(handle)
        with open(making / "manifest.json", "w") as handle:
            json.dump(
                {
                    "bytes": (making / "state.pt").stat().st_size,
                    "sha256": checksum(making / "state.pt"),
                },
                handle,
            )
            _onto_disk(handle)
        os.replace(making, final)
        _names_onto_disk(folder)
    except (OSError, RuntimeError) as error:  # torch has RuntimeError for a write that fails
        shutil.rmtree(making, ignore_errors=True)
        cause = error if isinstance(error, OSError) else error.__context__
        number = getattr(cause, "errno", None) or errno.EIO
        raise OSError(
            number,
            f"no checkpoint of step {state['step']:,} could be written into {folder}: {os.strerror(number)}; "
            "the one before it is as it was; runtime.execution.checkpoint_every=0 trains without",
        ) from error
    before = [path for path in _checkpoints(folder) if path < final]
    for path in set(_checkpoints(folder)) - {final, *before[-1:]}:
        shutil.rmtree(path, ignore_errors=True)


def newest(folder: Path, contract: dict[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint that is whole and was written under `contract`; None if there is none. Says why it passes one over."""
    found = _checkpoints(folder)
    for path in reversed(found):
        try:
            state = _read(path)
            _check_contract(state["contract"], contract)
            print(f"resume: going on after step {state['step']:,}", flush=True)
            return state
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:  # the last two: a manifest that says something else
            print(f"resume: {path.name} is passed over: {error}", flush=True)
    if found:
        print("resume: no checkpoint is left; starting anew", flush=True)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("step-*"))


def _read(path: Path) -> dict[str, Any]:
    """ValueError or OSError if it is not what was written."""
    file, manifest = path / "state.pt", json.loads((path / "manifest.json").read_text())
    if file.stat().st_size != manifest["bytes"]:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes of {manifest['bytes']:,}")
    if checksum(file) != manifest["sha256"]:
        raise ValueError(f"{file.name} fails its checksum")
    state = torch.load(file, map_location="cpu", weights_only=True)
    if path.name != f"step-{state['step']:08d}":
        raise ValueError(f"it holds step {state['step']:,}")
    return state


def _check_contract(written: dict[str, Any], wanted: dict[str, Any]) -> None:
    changed = [
        f"{key}={written.get(key)}, now {value}"
        for key, value in wanted.items()
        if written.get(key) != value
    ]
    if changed:
        raise ValueError(f"it was written with {'; '.join(changed)}")


READ = (
    "model/*.py",
    "data/**/*.py",
    "metrics/rouge.py",
    "stages/train.py",
    "stages/teach.py",
)  # what computes weights, curves or signals


def code_digest() -> str:
    """A digest of our sources that training or a teacher's signal is computed by: one result must not be made by two codes.

    No others are in it: what measures, draws or plans changes no weight, and an edit of it should cost nobody hours of training."""
    ours = Path(__file__).parent.parent
    files = sorted(path for part in READ for path in ours.glob(part))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _onto_disk(handle: Any) -> None:
    """Onto the disk, so that no crash of the machine leaves a name without its bytes."""
    handle.flush()
    os.fsync(handle.fileno())


def _names_onto_disk(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)
