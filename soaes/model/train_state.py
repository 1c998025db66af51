"""The state of a training run, and its checkpoints on disk.

A killed stage continues from its newest good checkpoint and, on a CPU, ends bit for bit as an
uninterrupted one. Which rows the next step reads follows from `TrainState.step` (data.datamodule).
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytorch_lightning as pl
import torch

from soaes.pipeline import private_api
from soaes.pipeline.store import checksum


@dataclass
class TrainState:
    """What a training run has done so far: everything that a checkpoint holds.

    One instance belongs to a run. `MetricsCallback` keeps `step` and `curve` up to date and
    `FiniteCallback` `skipped_steps`; `CheckpointCallback` writes snapshots. The states of
    Lightning's objects are None except in a snapshot, and between reading a checkpoint and
    `restore`.

    Attributes:
        contract: What the result depends on; a checkpoint of another contract is not resumed.
        step: Optimizer steps completed.
        seconds: Duration of the earlier attempts that this run continues; in a snapshot, of all.
        curve: Every line logged so far, each with its step.
        skipped_steps: Steps of float16 that the loss scaler left out.
        module: State of the Lightning module.
        optimizer: State of the optimizer.
        schedule: State of the learning-rate schedule.
        precision: State of Lightning's precision plugin.
        rng: State of the random generators of torch, NumPy and Python.
        began: Clock at the start of this attempt; not part of a checkpoint.
    """

    contract: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    skipped_steps: int = 0
    module: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    precision: dict[str, Any] | None = None
    rng: dict[str, Any] | None = None
    began: float = field(default_factory=time.monotonic, init=False, repr=False)

    @property
    def validations(self) -> list[dict[str, float]]:
        """The lines of the curve that validations logged, oldest first."""
        return [line for line in self.curve if "val/perplexity" in line]

    def elapsed_seconds(self) -> float:
        """Return the duration of this attempt and of those it continues."""
        return self.seconds + time.monotonic() - self.began

    def snapshot(self, trainer: pl.Trainer, module: pl.LightningModule) -> TrainState:
        """Return a copy that holds the states of module, optimizer and generators too.

        Call it between two optimizer steps. Tensors are shared, not copied.
        """
        return dataclasses.replace(
            self,
            seconds=self.elapsed_seconds(),
            module=module.state_dict(),
            optimizer=trainer.optimizers[0].state_dict(),
            schedule=trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            precision=trainer.precision_plugin.state_dict(),
            rng=_random_state(),
        )

    def restore(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Load the states of a checkpoint into Lightning's objects, and release their memory."""
        if self.module is None or self.rng is None:
            return
        module.load_state_dict(self.module)
        trainer.optimizers[0].load_state_dict(self.optimizer)
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.schedule)
        trainer.precision_plugin.load_state_dict(self.precision)
        private_api.set_completed_steps(trainer, self.step)
        _set_random_state(self.rng)
        self.module = self.optimizer = self.schedule = self.precision = self.rng = None


def write(folder: Path, state: TrainState) -> None:
    """Write a snapshot as folder/step-NNNNNNNN, and keep the one before it.

    A checkpoint gets its final name by one rename, so that under this name it is complete.

    Raises:
        OSError: It cannot be written; earlier checkpoints are intact.
    """
    unfinished = folder / "unfinished"
    final = folder / f"step-{state.step:08d}"
    content = {name: value for name, value in vars(state).items() if name != "began"}
    try:
        # What a kill left half-written, and a damaged checkpoint that was skipped.
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        unfinished.mkdir(parents=True)
        path = unfinished / "state.pt"
        with open(path, "wb") as handle:
            torch.save(content, handle)
            _sync_file(handle)
        manifest = {"bytes": path.stat().st_size, "sha256": checksum(path)}
        with open(unfinished / "manifest.json", "w", encoding="utf-8") as handle:
            json.dump(manifest, handle)
            _sync_file(handle)
        os.replace(unfinished, final)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a write that fails
        shutil.rmtree(unfinished, ignore_errors=True)
        cause = error if isinstance(error, OSError) else error.__context__
        number = getattr(cause, "errno", None) or errno.EIO
        raise OSError(
            number,
            f"no checkpoint of step {state.step:,} could be written into {folder}: "
            f"{os.strerror(number)}; the one before it is intact; "
            "runtime.execution.checkpoint_every=0 trains without checkpoints",
        ) from error
    _remove_old(folder, final)


def _remove_old(folder: Path, newest: Path) -> None:
    """Keep the newest checkpoint and the one before it."""
    earlier = [path for path in _checkpoints(folder) if path < newest]
    keep = {newest, *earlier[-1:]}
    for path in _checkpoints(folder):
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def load_newest(folder: Path, contract: dict[str, Any]) -> TrainState | None:
    """Load the newest checkpoint that is complete and was written under `contract`.

    Prints why it skips a checkpoint. Returns None if none is left.
    """
    checkpoints = _checkpoints(folder)
    for path in reversed(checkpoints):
        try:
            content = _read(path)
            _check_contract(content["contract"], contract)
            state = TrainState(**content)
            print(f"resume: continuing after step {state.step:,}", flush=True)
            return state
        except (OSError, ValueError, KeyError, TypeError) as error:
            # KeyError and TypeError: a manifest or a state with other fields.
            print(f"resume: {path.name} is skipped: {error}", flush=True)
    if checkpoints:
        print("resume: no usable checkpoint; starting from step 0", flush=True)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("step-*"))


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; ValueError or OSError if it is not what was written."""
    file = path / "state.pt"
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    size = file.stat().st_size
    if size != manifest["bytes"]:
        raise ValueError(f"{file.name} has {size:,} bytes of {manifest['bytes']:,}")
    if checksum(file) != manifest["sha256"]:
        raise ValueError(f"{file.name} fails its checksum")
    content = torch.load(file, map_location="cpu", weights_only=True)
    if path.name != f"step-{content['step']:08d}":
        raise ValueError(f"it holds step {content['step']:,}")
    return content


def _check_contract(written: dict[str, Any], expected: dict[str, Any]) -> None:
    differences = []
    for key, value in expected.items():
        if written.get(key) != value:
            differences.append(f"{key}={written.get(key)}, now {value}")
    if differences:
        raise ValueError(f"it was written with {'; '.join(differences)}")


# What computes weights, curves or soft targets.
DIGESTED_SOURCES = (
    "model/*.py",
    "data/**/*.py",
    "metrics/rouge.py",
    "metrics/bootstrap.py",
    "decode/backends/vllm_prompts.py",
    "decode/backends/vllm_process.py",
    "pipeline/private_api.py",
    "stages/train.py",
    "stages/teach.py",
)


def code_digest() -> str:
    """Return a digest of the sources that compute training and soft targets.

    It is part of the contract of checkpoints and teacher stores, since two versions of the code
    must not make one result. Code that measures, draws or plans is not in it: it changes no
    weight, and editing it should not cost hours of training.
    """
    package = Path(__file__).parent.parent
    files = sorted(path for pattern in DIGESTED_SOURCES for path in package.glob(pattern))
    content = b"".join(path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()[:12]


def _sync_file(handle: IO[Any]) -> None:
    """Force a file's bytes onto the disk, so that after a crash no name lacks its bytes."""
    handle.flush()
    os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    """Force a folder's names onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _random_state() -> dict[str, Any]:
    """The generators of torch, NumPy and Python. Training draws nothing on a GPU."""
    name, keys, *rest = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return {
        "torch": torch.get_rng_state(),
        "numpy": [name, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
