"""Learning-rate schedules as pure functions of the step: the factor on the peak rate, in (0, 1]."""

from __future__ import annotations

import math


def constant(step: int, steps: int, *, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then the peak rate."""
    return min(1.0, (step + 1) / max(1, math.ceil(warmup * steps)))


def cosine(step: int, steps: int, *, warmup: float, final: float) -> float:
    """Linear warm-up, then half a cosine from the peak rate down to `final` of it: 1e-5 -> 1e-6 in the paper is final = 0.1."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return constant(step, steps, warmup=warmup)
    done = (step - rising) / max(1, steps - 1 - rising)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, done))) / 2
