"""The Lightning data module over packed rows: which rows make which optimizer step.

The order of rows depends on (seed, epoch) alone, and every micro-batch carries the number of loss
tokens of its whole step. So neither the micro-batch size nor the number of devices changes what is
learnt.

# R rows, B rows of a micro-batch, T tokens of a row, N loss tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from soaes.data.token_store import IGNORE, Rows


class AsStored:
    """Fields of a teacher store over N tokens, which move to a device but keep their dtype.

    Lightning casts every floating-point tensor of a batch, also within dicts, to the precision of
    the weights. An object that has a method `to` is only moved.
    """

    def __init__(self, fields: dict[str, torch.Tensor]) -> None:
        self.fields = fields

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.fields[name]

    def keys(self) -> Iterable[str]:
        """Return the names of the fields."""
        return self.fields.keys()

    def to(self, device: torch.device) -> AsStored:
        """Move the fields to a device."""
        return AsStored({name: field.to(device) for name, field in self.fields.items()})


class Batch(TypedDict, total=False):
    """A micro-batch of one device."""

    ids_BT: torch.Tensor  # token ids
    labels_BT: torch.Tensor  # not shifted; IGNORE where a token bears no loss
    positions_BT: torch.Tensor  # restart at 0 in each document
    step_tokens: int  # loss tokens of the whole optimizer step, over all devices
    soft_targets: AsStored  # the teacher's, over the N loss tokens of these rows; distillation only


class PackedRows(Dataset):
    """The micro-batches of one device, in order.

    Args:
        rows: packed rows.
        batches: (row indices, loss tokens of the whole step) of each micro-batch.
        teacher_store: the teacher's soft targets over the rows, for distillation.
    """

    def __init__(
        self, rows: Rows, batches: list[tuple[np.ndarray, int]], teacher_store: Any = None
    ) -> None:
        self.rows = rows
        self.batches = batches
        self.teacher_store = teacher_store

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        row_indices, step_tokens = self.batches[index]
        is_empty = len(row_indices) == 0
        batch = self._rows_as_tensors(np.zeros(1, int) if is_empty else row_indices)
        if is_empty:  # a step with too few rows: a row without labels, so that no batch is empty
            batch["labels_BT"] = torch.full_like(batch["labels_BT"], IGNORE)
        if self.teacher_store is not None:
            batch["soft_targets"] = AsStored(self.teacher_store.rows(row_indices))
        batch["step_tokens"] = step_tokens
        return batch

    def _rows_as_tensors(self, row_indices: np.ndarray) -> Batch:
        ids_BT, labels_BT, positions_BT = (
            torch.from_numpy(array_RT[row_indices].astype(np.int64)) for array_RT in self.rows
        )
        return {"ids_BT": ids_BT, "labels_BT": labels_BT, "positions_BT": positions_BT}


class PackedDataModule(pl.LightningDataModule):
    """Optimizer steps of `global_batch_size` rows, cut into micro-batches for each device.

    Args:
        train: rows to train on.
        dev: rows to validate on.
        global_batch_size: rows of an optimizer step, over all devices.
        micro_batch_size: the most rows that a device computes at once.
        epochs: passes over all rows; may be fractional.
        seed: seed of the order of rows.
        devices: number of devices.
        teacher_store: the teacher's soft targets over `train`, for distillation.
        max_tokens: token budget, padding included, which may end training before `epochs`.
        num_workers: processes that prefetch batches; they change no order.
        start: optimizer steps that a resumed run has behind it.
        validation_rows: the most dev rows of a validation, spread evenly over the split.
    """

    def __init__(
        self,
        train: Rows,
        dev: Rows,
        global_batch_size: int,
        micro_batch_size: int,
        epochs: float,
        seed: int,
        devices: int = 1,
        teacher_store: Any = None,
        max_tokens: int | None = None,
        num_workers: int = 0,
        start: int = 0,
        validation_rows: int = 64,
    ) -> None:
        super().__init__()
        self.validation_rows = validation_rows
        self.train = train
        self.dev = dev
        self.teacher_store = teacher_store
        self.num_workers = num_workers
        self.start = start
        self.global_batch_size = global_batch_size
        self.epochs = epochs
        self.seed = seed
        self.devices = devices
        self.max_micro_batch_size = micro_batch_size
        self.micro_batch_size = _micro_batch_size(global_batch_size, micro_batch_size, devices)
        self.max_steps: int | None = None
        if max_tokens:
            tokens_per_step = global_batch_size * train.ids_RT.shape[1]
            self.max_steps = max(1, max_tokens // tokens_per_step)

    @property
    def accumulate(self) -> int:
        """Number of micro-batches of a step on each device."""
        return self.global_batch_size // (self.micro_batch_size * self.devices)

    @cached_property
    def steps(self) -> list[np.ndarray]:
        """Row indices of every optimizer step; the last step of an epoch may be smaller."""
        num_rows = len(self.train.ids_RT)
        steps_per_epoch = math.ceil(num_rows / self.global_batch_size)
        num_steps = max(1, math.ceil(self.epochs * steps_per_epoch))
        cuts = range(self.global_batch_size, num_rows, self.global_batch_size)
        steps: list[np.ndarray] = []
        for epoch in range(math.ceil(self.epochs)):
            order = np.random.default_rng([self.seed, epoch]).permutation(num_rows)
            steps += np.array_split(order, cuts)
        return steps[:num_steps][: self.max_steps]

    def micro_batches(self, rank: int) -> list[tuple[np.ndarray, int]]:
        """Return (row indices, loss tokens of the step) of a device's micro-batches, in order.

        A step with too few rows for all micro-batches repeats none: some have no row.
        """
        tokens_R = self.train.loss_tokens_R
        num_parts = self.accumulate * self.devices
        batches: list[tuple[np.ndarray, int]] = []
        for step in self.steps:
            step_tokens = max(1, int(tokens_R[step].sum()))
            parts = np.array_split(np.sort(step), num_parts)
            batches += [(part, step_tokens) for part in parts[rank :: self.devices]]
        return batches

    def train_dataloader(self) -> DataLoader:
        """Return the loader of this device's micro-batches that are still to be trained on."""
        rank = self.trainer.global_rank if self.trainer else 0
        remaining = self.micro_batches(rank)[self.start * self.accumulate :]
        dataset = PackedRows(self.train, remaining, self.teacher_store)
        return DataLoader(dataset, batch_size=None, shuffle=False, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader:
        """Return the loader of the dev rows that are validated on."""
        num_rows = len(self.dev.ids_RT)
        stride = max(1, math.ceil(num_rows / self.validation_rows))
        row_indices = np.arange(0, num_rows, stride)
        num_batches = max(1, math.ceil(len(row_indices) / self.max_micro_batch_size))
        parts = np.array_split(row_indices, num_batches)
        dataset = PackedRows(self.dev, [(part, 1) for part in parts])
        return DataLoader(dataset, batch_size=None, shuffle=False)


def _micro_batch_size(global_batch_size: int, limit: int, devices: int) -> int:
    """Return the largest size up to `limit` that divides a step evenly over the devices."""
    if global_batch_size % devices:
        raise ValueError(
            f"global_batch_size={global_batch_size} does not divide over {devices} devices; "
            "set runtime.execution.devices or optim.<phase>.global_batch_size"
        )
    rows_per_device = global_batch_size // devices
    sizes = range(min(limit, rows_per_device), 0, -1)
    return next(size for size in sizes if rows_per_device % size == 0)
