"""Learning-rate schedules: the factor on the peak rate, in (0, 1], as a function of the step."""

from __future__ import annotations

import math


def constant(step: int, steps: int, *, warmup: float) -> float:
    """Return the factor of a linear warm-up followed by the constant peak rate.

    Args:
        step: Optimizer steps completed.
        steps: Optimizer steps of the whole training.
        warmup: Share of the steps that the warm-up takes, in [0, 1].
    """
    warmup_steps = max(1, math.ceil(warmup * steps))
    return min(1.0, (step + 1) / warmup_steps)


def cosine(step: int, steps: int, *, warmup: float, final: float) -> float:
    """Return the factor of a linear warm-up followed by a half cosine down to `final`.

    The paper's 1e-5 -> 1e-6 is final = 0.1.

    Args:
        step: Optimizer steps completed.
        steps: Optimizer steps of the whole training.
        warmup: Share of the steps that the warm-up takes, in [0, 1].
        final: Factor at the last step.
    """
    warmup_steps = math.ceil(warmup * steps)
    if step < warmup_steps:
        return constant(step, steps, warmup=warmup)
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
