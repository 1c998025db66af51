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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from soaes.model import sharding
from soaes.pipeline import private_api
from soaes.pipeline.runtime import first_rank
from soaes.pipeline.store import checksum, sync_folder


class Shares(Protocol):
    """Weights and optimizer state of which every rank holds a share (soaes.model.parallel)."""

    def write_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """Write this rank's share."""

    def read_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """Load what `write_shares` wrote."""


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
        module: State of the Lightning module, without weights that are frozen.
        optimizer: State of the optimizer.
        schedule: State of the learning-rate schedule.
        precision: State of Lightning's precision plugin.
        layout: How weights and optimizer state lie in a checkpoint; `whole`: in `module` and
            `optimizer`, anything else: as shares beside the state.
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
    layout: str = "whole"
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
        is_whole = self.layout == "whole"
        return dataclasses.replace(
            self,
            seconds=self.elapsed_seconds(),
            module=_trained_state(module) if is_whole else None,
            optimizer=trainer.optimizers[0].state_dict() if is_whole else None,
            schedule=trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            precision=trainer.precision_plugin.state_dict(),
            rng=_random_state(),
        )

    def restore(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        folder: Path,
        shares: Shares | None = None,
    ) -> None:
        """Load the states of a checkpoint into Lightning's objects, and release their memory.

        Args:
            trainer: The trainer of the run.
            module: Its module.
            folder: Where checkpoints lie.
            shares: Who reads a rank's share of weights and optimizer state.
        """
        if self.rng is None:
            return
        if shares is not None:
            shares.read_shares(_path(folder, self.step) / SHARES, trainer, module)
        elif self.module is not None:
            module.load_state_dict(_frozen_state(module) | self.module)
            trainer.optimizers[0].load_state_dict(self.optimizer)
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.schedule)
        trainer.precision_plugin.load_state_dict(self.precision)
        private_api.set_completed_steps(trainer, self.step)
        _set_random_state(self.rng)
        self.module = self.optimizer = self.schedule = self.precision = self.rng = None


def _trained_state(module: torch.nn.Module) -> dict[str, Any]:
    """Return a module's state without its frozen weights, which are the parent's to the end."""
    frozen = _frozen_state(module)
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def _frozen_state(module: torch.nn.Module) -> dict[str, Any]:
    weights = module.named_parameters(remove_duplicate=False)
    return {name: weight.detach() for name, weight in weights if not weight.requires_grad}


SHARES = "shares"  # folder within a checkpoint


def write(
    folder: Path, state: TrainState, write_shares: Callable[[Path], None] | None = None
) -> None:
    """Write a snapshot as folder/step-NNNNNNNN, and keep the one before it.

    A checkpoint gets its final name by one rename, so that under this name it is complete: of
    several ranks the first renames it when all shares are on the disk.

    Args:
        folder: Where checkpoints lie.
        state: The snapshot.
        write_shares: Writes this rank's share into a folder; every rank then calls `write`. None:
            the snapshot is whole, and one rank calls it.

    Raises:
        OSError: It cannot be written; earlier checkpoints are intact.
    """
    unfinished = folder / "unfinished"
    final = _path(folder, state.step)
    try:
        if write_shares is None or first_rank():
            # What a kill left half-written, and a damaged checkpoint that was skipped.
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(final, ignore_errors=True)
            unfinished.mkdir(parents=True)
        files: dict[str, Any] = {}
        if write_shares is not None:
            dist.barrier()
            write_shares(unfinished / SHARES)
            dist.barrier()
            files = _digest_shares(unfinished)
        if write_shares is None or first_rank():
            _write_state(unfinished, state, files)
            os.replace(unfinished, final)
            sync_folder(folder)
        if write_shares is not None:
            dist.barrier()
    # torch raises RuntimeError for a write that fails, and its own for one of another rank
    except (OSError, RuntimeError, CheckpointException) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        cause = error if isinstance(error, OSError) else error.__context__
        number = getattr(cause, "errno", None) or errno.EIO
        raise OSError(
            number,
            f"no checkpoint of step {state.step:,} could be written into {folder}: "
            f"{os.strerror(number)}; the one before it is intact; "
            "runtime.execution.checkpoint_every=0 trains without checkpoints",
        ) from error
    if write_shares is None or first_rank():
        _remove_old(folder, final)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _write_state(path: Path, state: TrainState, shares: dict[str, Any]) -> None:
    """Write state.pt, and a manifest of it and of the shares beside it."""
    content = {name: value for name, value in vars(state).items() if name != "began"}
    with open(path / "state.pt", "wb") as handle:
        torch.save(content, handle)
        _sync_file(handle)
    manifest = {**_entry(path / "state.pt"), SHARES: shares}
    with open(path / "manifest.json", "w", encoding="utf-8") as handle:
        json.dump(manifest, handle)
        _sync_file(handle)


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def _digest_shares(path: Path) -> dict[str, Any]:
    """Return name -> size and digest of all ranks' files; each rank reads an equal part of them."""
    files = sorted(file for file in (path / SHARES).rglob("*") if file.is_file())
    entries = {}
    for file in files[dist.get_rank() :: dist.get_world_size()]:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
        entries[str(file.relative_to(path))] = _entry(file)
    gathered: dict[str, Any] = {}
    for part in sharding.gather(entries):
        gathered.update(part)
    return gathered


def _remove_old(folder: Path, newest: Path) -> None:
    """Keep the newest checkpoint and the one before it."""
    earlier = [path for path in _checkpoints(folder) if path < newest]
    keep = {newest, *earlier[-1:]}
    for path in _checkpoints(folder):
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def load_newest(folder: Path, contract: dict[str, Any], layout: str = "whole") -> TrainState | None:
    """Load the newest checkpoint that is complete and was written under `contract`.

    Prints why it skips a checkpoint. Returns None if none is left. Where ranks hold shares, every
    rank calls it, and a checkpoint that one of them cannot read is skipped by all.

    Args:
        folder: Where checkpoints lie.
        contract: What the result depends on.
        layout: See TrainState.

    Raises:
        ValueError: The newest good checkpoint is of another layout; nothing of it is lost.
    """
    checkpoints = _checkpoints(folder)
    for path in reversed(checkpoints):
        try:
            state = _read_state(path, contract)
            problem = ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            # KeyError and TypeError: a manifest or a state with other fields.
            problem = str(error)
        if layout != "whole":
            problem = next(filter(None, sharding.gather(problem)), "")
        if problem:
            print(f"resume: {path.name} is skipped: {problem}", flush=True)
            continue
        if state.layout != layout:
            raise ValueError(
                f"the checkpoint of step {state.step:,} in {folder} was written as {state.layout}, "
                f"and this run would read {layout}; set runtime.execution.strategy and devices as "
                "they were to resume from it, or delete the folder to begin anew"
            )
        print(f"resume: continuing after step {state.step:,}", flush=True)
        return state
    if checkpoints:
        print("resume: no usable checkpoint; starting from step 0", flush=True)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("step-*"))


def _read_state(path: Path, contract: dict[str, Any]) -> TrainState:
    """The state of a checkpoint; an error says what is wrong with it."""
    content = _read(path)
    _check_contract(content["contract"], contract)
    return TrainState(**content)


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; ValueError or OSError if it is not what was written."""
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    _check_file(path / "state.pt", manifest)
    _check_shares(path, manifest[SHARES])
    content = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    if path.name != f"step-{content['step']:08d}":
        raise ValueError(f"it holds step {content['step']:,}")
    return content


def _check_file(file: Path, entry: dict[str, Any]) -> None:
    """Check that a file is what the manifest says."""
    size = file.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(f"{file.name} has {size:,} bytes of {entry['bytes']:,}")
    if checksum(file) != entry["sha256"]:
        raise ValueError(f"{file.name} fails its checksum")


def _check_shares(path: Path, entries: dict[str, Any]) -> None:
    """Check the files of all ranks; each rank reads an equal part of them."""
    rank, ranks = 0, 1
    if dist.is_initialized():
        rank, ranks = dist.get_rank(), dist.get_world_size()
    for name in sorted(entries)[rank::ranks]:
        _check_file(path / name, entries[name])


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
    "decode/backends/vllm_engine.py",
    "decode/backends/vllm_hidden.py",
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
