"""How a stage is run: devices, threads, micro-batch, kernels. Never part of a training recipe, since it must not change a result."""

from __future__ import annotations

import os
from typing import Any, NamedTuple


class Execution(NamedTuple):
    """device: cpu or cuda. devices: processes of one stage. micro_batch_size: rows at once on each. attention: `documents`, or one of transformers'.

    checkpoint_every: seconds of training between two checkpoints that a killed stage goes on from, 0: none. Only where every rank holds the
    whole state (strategy auto or ddp)."""

    device: str = "cpu"
    devices: int = 1
    threads: int = 1
    micro_batch_size: int = 8
    strategy: Any = "auto"  # a Lightning strategy, by name or as an object
    attention: str = "sdpa"
    gradient_checkpointing: bool = False  # gradient checkpointing
    compile: bool = (
        False  # torch.compile of the model's body: tens of seconds before the first step
    )
    cpu_offload: bool = False  # the optimizer's state lies in the processor's memory (DeepSpeed)
    num_workers: int = 0  # processes that read rows ahead of training, on each device
    checkpoint_every: float = 0.0


def first_rank() -> bool:
    """torchrun numbers a stage's ranks; a stage of one process is its own first."""
    return os.environ.get("RANK", "0") == "0"
