"""The Lightning data module over packed rows: which rows make which step. Knows order and batches; the loss is the model's.

The order is a function of (seed, epoch) alone, and every micro-batch carries the number of loss tokens of its whole step, so
neither micro-batch nor the number of devices changes what is learnt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from soaes.data.token_store import IGNORE, Rows


class AsStored:
    """The fields of a teacher's store over N tokens, each [N, *shape]: they go to a batch's device, and stay as they were stored.

    Of a batch Lightning casts every floating tensor, in its dicts too, to the precision of weights; what else has a `to` it moves alone."""

    def __init__(self, fields: dict[str, torch.Tensor]) -> None:
        self.fields = fields

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.fields[name]

    def keys(self) -> Iterable[str]:
        return self.fields.keys()

    def to(self, device: torch.device) -> AsStored:
        return AsStored({name: field.to(device) for name, field in self.fields.items()})


class PackedRows(Dataset):
    """Micro-batch i of this rank as tensors ids_BT, labels_BT, positions_BT, step_tokens, and `soft_targets` where a teacher's store is given:
    its fields over the N tokens of these rows that bear loss."""

    def __init__(
        self, rows: Rows, batches: list[tuple[np.ndarray, int]], teacher_store: Any = None
    ) -> None:
        self.rows, self.batches, self.teacher_store = rows, batches, teacher_store

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, at: int) -> dict[str, Any]:
        which, step_tokens = self.batches[at]
        batch = self._batch(which if len(which) else np.zeros(1, int))
        if not len(
            which
        ):  # the rest of a small step: a row without labels, so that every micro-batch has one
            batch["labels_BT"] = torch.full_like(batch["labels_BT"], IGNORE)
        if self.teacher_store is not None:
            batch["soft_targets"] = AsStored(self.teacher_store.rows(which))
        return {**batch, "step_tokens": step_tokens}

    def _batch(self, which: np.ndarray) -> dict[str, Any]:
        names = zip(("ids_BT", "labels_BT", "positions_BT"), self.rows, strict=True)
        return {name: torch.from_numpy(array[which].astype(np.int64)) for name, array in names}


class PackedDataModule(pl.LightningDataModule):
    """global_batch_size rows a step, cut into micro-batches of at most `micro_batch_size` rows on each of `devices`.

    epochs over all rows, or fewer where `max_tokens`, the budget with padding included, ends first. teacher_store: a teacher's store over the rows.
    num_workers: processes that read ahead; they change no order. start: steps that are over already.
    validation_rows: dev rows of a validation at most, spread evenly over the split."""

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
        self.train, self.dev, self.teacher_store, self.num_workers, self.start = (
            train,
            dev,
            teacher_store,
            num_workers,
            start,
        )
        self.global_batch_size, self.epochs, self.seed, self.devices = (
            global_batch_size,
            epochs,
            seed,
            devices,
        )
        self.most_steps = (
            max(1, max_tokens // (global_batch_size * train.ids_RT.shape[1]))
            if max_tokens
            else None
        )
        self.most, self.micro_batch_size = (
            micro_batch_size,
            _micro_batch(global_batch_size, micro_batch_size, devices),
        )

    @property
    def accumulate(self) -> int:
        """Micro-batches a step on each device."""
        return self.global_batch_size // (self.micro_batch_size * self.devices)

    @cached_property
    def steps(self) -> list[np.ndarray]:
        """Row indices of every optimizer step; an epoch's last step may be smaller."""
        count = len(self.train.ids_RT)
        an_epoch = math.ceil(count / self.global_batch_size)
        total = max(1, math.ceil(self.epochs * an_epoch))
        steps: list[np.ndarray] = []
        for epoch in range(math.ceil(self.epochs)):
            order = np.random.default_rng([self.seed, epoch]).permutation(count)
            steps += np.array_split(
                order, range(self.global_batch_size, count, self.global_batch_size)
            )
        return steps[:total][: self.most_steps]

    def micro_batches(self, rank: int) -> list[tuple[np.ndarray, int]]:
        """(row indices, loss tokens of the whole step) in order. A step too small for every micro-batch repeats none: some are empty."""
        tokens_R = self.train.loss_tokens_R
        parts = self.accumulate * self.devices
        return [
            (part, max(1, int(tokens_R[step].sum())))
            for step in self.steps
            for part in np.array_split(np.sort(step), parts)[rank :: self.devices]
        ]

    def train_dataloader(self) -> DataLoader:
        rank = self.trainer.global_rank if self.trainer else 0
        left = self.micro_batches(rank)[self.start * self.accumulate :]
        return DataLoader(
            PackedRows(self.train, left, self.teacher_store),
            batch_size=None,
            shuffle=False,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> DataLoader:
        count = len(self.dev.ids_RT)
        which = np.arange(0, count, max(1, math.ceil(count / self.validation_rows)))
        parts = np.array_split(which, max(1, math.ceil(len(which) / self.most)))
        return DataLoader(
            PackedRows(self.dev, [(part, 1) for part in parts]), batch_size=None, shuffle=False
        )


def _micro_batch(total: int, most: int, devices: int) -> int:
    """The largest micro-batch of at most `most` rows that divides a step evenly over the devices."""
    if total % devices:
        raise ValueError(
            f"global_batch_size={total} does not divide over {devices} devices; set runtime.execution.devices or optim.<phase>.global_batch_size"
        )
    share = total // devices
    return next(size for size in range(min(most, share), 0, -1) if share % size == 0)
