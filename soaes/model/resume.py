"""Checkpoints of a training stage: a killed one goes on from its last good one, and ends bit for bit as if nothing had happened (on a CPU).

Knows files, and a Lightning trainer's state between two steps. Which rows the next step reads is the data module's to say."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from soaes.recipe import check_room, checksum

AT_ONCE = 3  # checkpoints on the disk at most: the last, the one before it should the last be damaged, and one being written


class Resume(pl.Callback):
    """Write a checkpoint into `folder` whenever `every` seconds have passed (0: never), between two steps; take up the newest that is good.

    contract: what a checkpoint must have been written with to be taken up. curves: the callback whose record goes along.
    A module that counts something beside its weights adds it to its state_dict by torch's get_extra_state and set_extra_state.
    Every rank reads, the first writes: each must hold the whole state."""

    def __init__(self, folder: Path, every: float, contract: dict[str, Any], curves: Any) -> None:
        self.folder, self.every, self.contract, self.curves = folder, every, contract, curves
        self.found = newest(folder, contract) if every else None
        self.step = self.found["step"] if self.found else 0  # of the last checkpoint
        self.since = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.every:
            _check_room(self.folder, module)
        if self.found:
            self._take_up(trainer, module, self.found)
            self.found = None  # its memory is not needed twice
        self.since = time.monotonic()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: dict[str, Any], at: int) -> None:
        """Before a step's first micro-batch all of the last step is over, its validation too, and no gradient is kept."""
        due = self.every and time.monotonic() - self.since >= self.every
        if due and trainer.is_global_zero and trainer.global_step > self.step and at % trainer.accumulate_grad_batches == 0:
            self.step = trainer.global_step
            write(self.folder, self._state(trainer, module))
            self.since = time.monotonic()

    def _state(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        return {"contract": self.contract, "step": self.step, "module": module.state_dict(), "optimizer": trainer.optimizers[0].state_dict(),
                "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(), "precision": trainer.precision_plugin.state_dict(),
                "curves": self.curves.state_dict(), "random": _random()}

    def _take_up(self, trainer: pl.Trainer, module: pl.LightningModule, state: dict[str, Any]) -> None:
        module.load_state_dict(state["module"])
        trainer.optimizers[0].load_state_dict(state["optimizer"])
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(state["schedule"])
        trainer.precision_plugin.load_state_dict(state["precision"])
        self.curves.load_state_dict(state["curves"])
        # Lightning takes the rest of the rows for an epoch of its own: only what it counts over all epochs goes on
        loop = trainer.fit_loop.epoch_loop
        loop.automatic_optimization.optim_progress.optimizer.step.total.completed = state["step"]  # trainer.global_step
        loop.batch_progress.total.ready = state["step"] * trainer.accumulate_grad_batches  # says when to validate
        _set_random(state["random"])


def write(folder: Path, state: dict[str, Any]) -> None:
    """A checkpoint under its final name is whole: it comes there by one rename. OSError if it cannot be written; those before it stay."""
    making, final = folder / "making", folder / f"step-{state['step']:08d}"
    try:
        for path in (making, final):  # what a kill left half-written, and a damaged one that was passed over
            shutil.rmtree(path, ignore_errors=True)
        making.mkdir(parents=True)
        with open(making / "state.pt", "wb") as handle:
            torch.save(state, handle)
            _onto_disk(handle)
        with open(making / "manifest.json", "w") as handle:
            json.dump({"bytes": (making / "state.pt").stat().st_size, "sha256": checksum(making / "state.pt")}, handle)
            _onto_disk(handle)
        os.replace(making, final)
        _names_onto_disk(folder)
    except (OSError, RuntimeError) as error:  # torch has RuntimeError for a write that fails
        shutil.rmtree(making, ignore_errors=True)
        cause = error if isinstance(error, OSError) else error.__context__
        number = getattr(cause, "errno", None) or errno.EIO
        raise OSError(number, f"no checkpoint of step {state['step']:,} could be written into {folder}: {os.strerror(number)}; "
                              "the one before it is as it was; runtime.execution.checkpoint_every=0 trains without") from error
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
        except (OSError, ValueError, KeyError, TypeError) as error:  # the last two: a manifest that says something else
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
    changed = [f"{key}={written.get(key)}, now {value}" for key, value in wanted.items() if written.get(key) != value]
    if changed:
        raise ValueError(f"it was written with {'; '.join(changed)}")


def _check_room(folder: Path, module: pl.LightningModule) -> None:
    """ValueError if the disk cannot hold, beside the checkpoints that are there, what AT_ONCE of them take."""
    held = sum(path.stat().st_size for path in folder.rglob("state.pt"))
    check_room(folder, AT_ONCE * _bytes(module) - held, "checkpoints", "train without: runtime.execution.checkpoint_every=0")


def _bytes(module: pl.LightningModule) -> int:
    """A checkpoint's: what the module keeps, a tied weight once, and AdamW's two moments of the weights that are trained."""
    kept = {tensor.data_ptr(): tensor.nbytes for tensor in module.state_dict().values() if isinstance(tensor, torch.Tensor)}
    return sum(kept.values()) + 2 * sum(weight.nbytes for weight in module.parameters() if weight.requires_grad)


READ = ("model/*.py", "data/*.py", "metrics/rouge.py", "stages/train.py", "stages/teach*.py")  # what computes weights, curves or signals


def code() -> str:
    """A digest of our sources that training or a teacher's signal is computed by: one result must not be made by two codes.

    No others are in it: what measures, draws or plans changes no weight, and an edit of it should cost nobody hours of training."""
    ours = Path(__file__).parent.parent
    files = sorted(path for part in READ for path in ours.glob(part))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _random() -> dict[str, Any]:
    """The generators of torch, NumPy and Python. Nothing in training draws on a GPU."""
    name, keys, *rest = np.random.get_state()
    return {"torch": torch.get_rng_state(), "numpy": [name, keys.tolist(), *rest], "python": random.getstate()}


def _set_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def _onto_disk(handle: Any) -> None:
    """Onto the disk, so that no crash of the machine leaves a name without its bytes."""
    handle.flush()
    os.fsync(handle.fileno())


def _names_onto_disk(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)
