"""Time work on any device: a GPU computes on while Python goes ahead, so the clock waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def synchronize(device: torch.device | str) -> None:
    """Wait until a device has done all that it was given; a CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(
    device: torch.device | str,
    action: Callable[Arguments, Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> tuple[float, Result]:
    """Call an action on an idle device.

    Args:
        device: Where the action computes.
        action: What is timed; its arguments follow.

    Returns:
        The seconds until the device has done the action's work, and the action's result.
    """
    synchronize(device)
    start = time.perf_counter()
    result = action(*args, **kwargs)
    synchronize(device)
    return time.perf_counter() - start, result
