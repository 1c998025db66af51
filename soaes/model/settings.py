"""Settings of training that conf/ builds and that are checked when a job is composed.

Knows values only: it imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from soaes.pipeline.validation import (
    check_at_least,
    check_in_range,
    check_one_of,
    check_positive,
    check_whole,
)

# Lightning's names: "true" stores the weights in this type, "mixed" computes in it
PRECISIONS = ("64-true", "32-true", "bf16-true", "bf16-mixed", "16-true", "16-mixed")

Schedule = Callable[[int, int], float]  # (step, number of steps) -> factor on the peak rate


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, its schedule, and how much is read: the settings of one training phase.

    Attributes:
        lr: peak learning rate.
        global_batch_size: rows of one optimizer step, over all devices and micro-batches.
        schedule: factor on the peak rate by (step, number of steps).
        epochs: passes over the rows; a fraction ends within a pass.
        max_tokens: budget of tokens, padding included, that may end training earlier; None: none.
        betas: AdamW's decay rates of the first and the second moment.
        weight_decay: AdamW's decay, on matrices only.
        grad_clip: the norm that gradients are clipped to.
        precision: numeric precision by Lightning's name.
    """

    lr: float
    global_batch_size: int
    schedule: Schedule
    epochs: float = 1
    max_tokens: int | None = None
    betas: Sequence[float] = (0.9, 0.95)
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    precision: str = "bf16-true"

    def __post_init__(self) -> None:
        check_positive("lr", self.lr, "the peak learning rate")
        check_whole("global_batch_size", self.global_batch_size, 1, "the rows of a step")
        check_positive("epochs", self.epochs, "the passes over the rows")
        if self.max_tokens is not None:
            check_whole("max_tokens", self.max_tokens, 1, "a token budget; null for none")
        if len(self.betas) != 2:
            raise ValueError(f"betas={list(self.betas)}: must be two numbers, as in [0.9, 0.95]")
        for beta in self.betas:
            check_in_range("betas", beta, "[0, 1)", "the decay rates of AdamW's moments")
        check_at_least("weight_decay", self.weight_decay, 0, "AdamW's decay; 0 is none")
        check_positive("grad_clip", self.grad_clip, "the norm that gradients are clipped to")
        check_one_of("precision", self.precision, PRECISIONS, "numeric precision of training")


@dataclass(frozen=True)
class ValidationSettings:
    """How a model is validated while it trains.

    Attributes:
        per_run: validations of a run, beside the one before the first step.
        rows: dev rows of a validation at most, spread evenly over the dev split: enough for a
            curve, and short beside training.
        max_new_tokens: length limit of the greedy answers that the validation Rouge-1 scores.
    """

    per_run: int = 4
    rows: int = 64
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        check_whole("per_run", self.per_run, 1, "the validations of a run")
        check_whole("rows", self.rows, 1, "the dev rows of a validation")
        check_whole("max_new_tokens", self.max_new_tokens, 1, "the length limit of an answer")


@dataclass(frozen=True)
class ProbeSettings:
    """The sample on which a store of soft targets measures what its format loses.

    The student of the probe is the teacher itself at a higher temperature: it agrees with the
    teacher and is less sure.

    Attributes:
        taus: temperatures of distillation at which a format is probed that serves them all; a
            format with `taus` of its own is probed at those.
        rows: packed rows that the sample is taken from, spread evenly.
        tokens: tokens of the sample at most, spread evenly over these rows.
        repeats: encodings of each token, for a format that draws.
        student_temperature: temperature of the student relative to the teacher.
    """

    taus: Sequence[float] = (1.0, 2.0, 3.0, 5.0)
    rows: int = 8
    tokens: int = 200
    repeats: int = 8
    student_temperature: float = 1.5

    def __post_init__(self) -> None:
        if not self.taus:
            raise ValueError("taus=[]: must hold a temperature or more, as in [1, 2, 3, 5]")
        for tau in self.taus:
            check_positive("taus", tau, "the temperatures of distillation")
        check_whole("rows", self.rows, 1, "the packed rows of the probe")
        check_whole("tokens", self.tokens, 1, "the tokens of the probe")
        check_whole("repeats", self.repeats, 1, "the encodings of each token of the probe")
        check_positive("student_temperature", self.student_temperature, "as its teacher: 1")
