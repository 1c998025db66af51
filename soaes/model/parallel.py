"""How a training stage lays its model over the ranks that run it.

There are three ways: whole on each rank (`Parallel`, here), in shares by FSDP2
(`soaes.model.fsdp2`) and in shares by DeepSpeed's ZeRO-3 (`soaes.model.zero3`). None of them
changes a result: losses are one process's but for the order of a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from transformers import PreTrainedModel

from soaes.model import checkpoint
from soaes.pipeline.runtime import Execution


class Parallel:
    """A model whole on each rank; subclasses shard it.

    Args:
        execution: The devices.
        precision: The type of the arithmetic, by Lightning's name. Weights are float32.

    Attributes:
        saved_dtype: The type of the weights in the folder that the stage fills.
    """

    is_sharded = False

    def __init__(self, execution: Execution, precision: str) -> None:
        self.execution = execution
        self.precision = precision
        self.saved_dtype = torch.float32

    @property
    def layout(self) -> str:
        """How a checkpoint lies on the disk; only a run of the same layout can resume from it."""
        return "whole"

    @property
    def trainer_precision(self) -> str:
        """The precision that Lightning is told."""
        return self.precision

    @property
    def adamw(self) -> Callable[..., torch.optim.Optimizer]:
        """The optimizer's class."""
        return partial(torch.optim.AdamW, fused=True)

    def load(self, folder: Path) -> PreTrainedModel:
        """Load the model of a folder, float32. Every rank calls it.

        `saved_dtype` becomes the type of the folder's weights, in which the stage saves its own.
        """
        self.saved_dtype = checkpoint.stored_dtype(folder)
        return checkpoint.load(folder)

    def place(self, model: PreTrainedModel) -> PreTrainedModel:
        """Lay a model over the ranks that each of them has created whole."""
        return model

    def strategy(self) -> pl.strategies.Strategy | str:
        """Return Lightning's strategy."""
        return "ddp" if self.execution.parallelism == "ddp" else "auto"

    def write_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """Write this rank's share of weights and optimizer state. Every rank calls it."""
        raise NotImplementedError(self.layout)

    def read_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """Load what `write_shares` wrote. Every rank calls it."""
        raise NotImplementedError(self.layout)
