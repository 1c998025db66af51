"""The ranges of what a user may set: checked when a row is composed, so that a slip costs nothing, and again where it is used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Limit = tuple[Callable[[Any], bool], str]
LIMITS: dict[str, Limit] = {
    "alpha": (lambda value: 0 <= value <= 1, "a KD weight lies in [0, 1]; 0 is plain SFT, 1 distillation alone"),
    "tau": (lambda value: value > 0, "a temperature of distillation is positive; the paper sweeps 1, 2, 3, 5"),
    "n": (lambda value: value >= 1 and value == int(value), "a block drafts at least 1 token; for none set decode=autoregressive"),
    "match": (lambda value: value >= 1 and value == int(value), "prompt lookup matches at least 1 token"),
    "top_p": (lambda value: 0 < value <= 1, "top-p lies in (0, 1]; 1 keeps the whole distribution"),
    "temperature": (lambda value: value >= 0, "a temperature of sampling is at least 0; 0 is greedy"),
    "context": (lambda value: value >= 16, "a row holds at least 16 tokens"),
    "lr": (lambda value: value > 0, "a learning rate is positive"),
    "total_batch": (lambda value: value >= 1, "a step reads at least 1 row"),
    "epochs": (lambda value: value > 0, "training takes more than 0 epochs"),
    "shots": (lambda value: value >= 0, "an exam shows 0 examples or more"),
    "prompts": (lambda value: value >= 1, "a speed row decodes at least 1 prompt"),
    "rounds": (lambda value: value >= 3, "a speed is the median of at least 3 rounds"),
}


def check(**values: Any) -> None:
    """ValueError with the value, the limit and the way out for the first value out of its range."""
    for name, value in values.items():
        holds, limit = LIMITS.get(name, (None, ""))
        if holds is None or value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not holds(value):
            raise ValueError(f"{name}={value}: {limit}")
