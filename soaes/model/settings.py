"""Settings of training that conf/ builds and that are checked when a job is composed.

Knows values only: it imports no torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from soaes.pipeline.validation import (
    DTYPES,
    check_at_least,
    check_in_range,
    check_numbers,
    check_one_of,
    check_positive,
    check_tau,
    check_whole,
)

# Lightning's names of the types that training computes in. Its others also store the weights in the
# type that they compute in: at a rate of 1e-6 hardly a bfloat16 weight ever moves.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class Schedule(ABC):
    """A learning-rate schedule: the factor on the peak rate, as a function of the step."""

    @abstractmethod
    def __call__(self, step: int, steps: int) -> float:
        """Return the factor, in [0, 1].

        Args:
            step: optimizer steps completed.
            steps: optimizer steps of the whole training.
        """


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """A linear warm-up, then the constant peak rate.

    Attributes:
        warmup: share of the steps that the warm-up takes, in [0, 1].
    """

    warmup: float

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def __call__(self, step: int, steps: int) -> float:
        """See Schedule."""
        warmup_steps = max(1, math.ceil(self.warmup * steps))
        return min(1.0, (step + 1) / warmup_steps)


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """A linear warm-up, then half a cosine down to `final`.

    Attributes:
        warmup: share of the steps that the warm-up takes, in [0, 1].
        final: factor at the last step, in [0, 1]; the paper's 1e-5 -> 1e-6 is 0.1.
    """

    warmup: float
    final: float

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        check_in_range("final", self.final, "[0, 1]", "the last step's share of the peak rate")

    def __call__(self, step: int, steps: int) -> float:
        """See Schedule."""
        warmup_steps = math.ceil(self.warmup * steps)
        if step < warmup_steps:
            return ConstantSchedule(self.warmup)(step, steps)
        progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
        falling = (1 + math.cos(math.pi * min(1.0, progress))) / 2  # from 1 to 0
        return self.final + (1 - self.final) * falling


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """A linear warm-up, then a line down to `final`.

    Attributes:
        warmup: share of the steps that the warm-up takes, in [0, 1].
        final: factor that the line would reach one step after the last, in [0, 1]: with 0 the last
            step still learns. (The cosine reaches its `final` at the last step.)
    """

    warmup: float
    final: float

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        check_in_range("final", self.final, "[0, 1]", "the share of the peak rate after the end")

    def __call__(self, step: int, steps: int) -> float:
        """See Schedule."""
        warmup_steps = math.ceil(self.warmup * steps)
        if step < warmup_steps:
            return ConstantSchedule(self.warmup)(step, steps)
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return self.final + (1 - self.final) * (1 - min(1.0, progress))


def _check_warmup(warmup: float) -> None:
    check_in_range("warmup", warmup, "[0, 1]", "the share of the steps that the warm-up takes")


# The matrices of a layer, as Qwen2, Qwen3, Llama and many others name them: attention, then SwiGLU.
LAYER_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraSettings:
    """Which matrices get a product of two small ones beside them, which alone are trained.

        y = W x + alpha / rank * B A x        (Hu et al. 2022, LoRA)

    A is random and B zero at first, so that training begins with the parent. There is no dropout:
    it would be drawn for each micro-batch, and how many of them make a step changes no result.

    Attributes:
        rank: rows of A and columns of B.
        alpha: alpha / rank is the factor of the product.
        target_modules: names of the matrices, of every layer; the output matrix is not among them.
    """

    rank: int
    alpha: float
    target_modules: Sequence[str] = LAYER_MATRICES

    def __post_init__(self) -> None:
        all_weights = "lora=null trains all weights"
        check_whole("rank", self.rank, 1, f"the rank of the adapters; {all_weights}")
        check_positive("alpha", self.alpha, "alpha / rank is the factor of the adapters' product")
        names = self.target_modules
        is_list = isinstance(names, Sequence) and not isinstance(names, str)
        if not is_list or not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"target_modules={names}: must be a list of names of matrices, as in "
                f"[q_proj, v_proj]; {all_weights}"
            )
        if "lm_head" in names:
            raise ValueError(
                "target_modules: lm_head is the output matrix, which the losses read whole and "
                "LoRA leaves as it is; name matrices of layers, or set lora=null"
            )


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, its schedule, and how much is read: the settings of one training phase.

    Attributes:
        lr: peak learning rate.
        global_batch_size: rows of one optimizer step, over all devices and micro-batches.
        schedule: factor on the peak rate, as a function of the step.
        epochs: passes over the rows; a fraction ends within a pass.
        max_tokens: budget of tokens, padding included, that may end training earlier; None: none.
        betas: AdamW's decay rates of the first and the second moment.
        weight_decay: AdamW's decay, on matrices only.
        grad_clip: the norm that gradients are clipped to.
        precision: the type of the arithmetic, by Lightning's name; weights and the optimizer's
            state are float32 in each.
        lora: the adapters that are trained; None: all weights are.
    """

    lr: float
    global_batch_size: int
    schedule: Schedule
    epochs: float = 1
    max_tokens: int | None = None
    betas: Sequence[float] = (0.9, 0.95)
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    precision: str = "bf16-mixed"
    lora: LoraSettings | None = None

    def __post_init__(self) -> None:
        check_positive("lr", self.lr, "the peak learning rate")
        if not isinstance(self.schedule, Schedule):
            raise ValueError(
                f"schedule={self.schedule}: must be a schedule of soaes.model.settings; keep the "
                "node of conf/optim whole, and set schedule._target_ for another one"
            )
        check_whole("global_batch_size", self.global_batch_size, 1, "the rows of a step")
        check_positive("epochs", self.epochs, "the passes over the rows")
        if self.max_tokens is not None:
            check_whole("max_tokens", self.max_tokens, 1, "a token budget; null for none")
        check_numbers("betas", self.betas, "two numbers, as in [0.9, 0.95]", count=2)
        for beta in self.betas:
            check_in_range("betas", beta, "[0, 1)", "the decay rates of AdamW's moments")
        check_at_least("weight_decay", self.weight_decay, 0, "AdamW's decay; 0 is none")
        check_positive("grad_clip", self.grad_clip, "the norm that gradients are clipped to")
        computed_in = "the type of the arithmetic; weights stay float32: bf16-mixed, not bf16-true"
        check_one_of("precision", self.precision, PRECISIONS, computed_in)
        if not isinstance(self.lora, LoraSettings | None):
            raise ValueError(
                f"lora={self.lora}: must be LoraSettings; keep the node of conf/optim/lora.yaml "
                "whole, or set null, which trains all weights"
            )


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
        taus: temperatures of distillation at which a format that supports all of them is probed; a
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
        check_numbers("taus", self.taus, "a list of temperatures, as in [1, 2, 3, 5]")
        for tau in self.taus:
            check_positive("taus", tau, "the temperatures of distillation")
        check_whole("rows", self.rows, 1, "the packed rows of the probe")
        check_whole("tokens", self.tokens, 1, "the tokens of the probe")
        check_whole("repeats", self.repeats, 1, "the encodings of each token of the probe")
        check_positive("student_temperature", self.student_temperature, "as its teacher: 1")


# ------------------------------------------------------------------------- formats of soft targets

DIVERGENCES = ("forward", "reverse", "total_variation")


@dataclass(frozen=True)
class Hidden:
    """Store the teacher's final hidden states, and its output matrix once.

    Attributes:
        dtype: Of the stored states.
    """

    dtype: str = "float32"
    name: ClassVar[str] = "hidden"

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, DTYPES)

    def check_supports(self, tau: float, kind: str) -> None:
        """Raise ValueError for an unknown divergence or a tau out of range."""
        _check_divergence(tau, kind)


@dataclass(frozen=True)
class Full:
    """Store all logits.

    Attributes:
        dtype: Of the stored logits.
    """

    dtype: str = "float32"
    name: ClassVar[str] = "full"

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, DTYPES)

    def check_supports(self, tau: float, kind: str) -> None:
        """Raise ValueError for an unknown divergence or a tau out of range."""
        _check_divergence(tau, kind)


@dataclass(frozen=True)
class TopK:
    """Store the k largest logits, and the mass of the tail at each of `taus`.

    Attributes:
        k: Logits of a token.
        taus: Temperatures that a student may be trained at.
        dtype: Of the stored logits.
        vocab: Ids that teacher and student have in common, where their vocabularies are padded to
            different sizes; None: the teacher's.
    """

    k: int
    taus: Sequence[float]
    dtype: str = "float16"
    vocab: int | None = None
    name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1, "the logits stored of a token")
        check_one_of("dtype", self.dtype, DTYPES)
        _check_vocab(self.vocab)
        object.__setattr__(self, "taus", _checked_taus(self.taus))

    def check_supports(self, tau: float, kind: str) -> None:
        """Raise ValueError, with the way out, for a tau that the tail is not stored at."""
        _check_divergence(tau, kind)
        _check_stored_tau(tau, self.taus)


@dataclass(frozen=True)
class Sampled:
    """Store ids drawn from the teacher's distribution, and its entropy, at each of `taus`.

    Attributes:
        draws: Ids of a token and temperature.
        taus: Temperatures that a student may be trained at.
        vocab: As for TopK.
    """

    draws: int
    taus: Sequence[float]
    vocab: int | None = None
    name: ClassVar[str] = "sampled"

    def __post_init__(self) -> None:
        check_whole("draws", self.draws, 1, "the ids drawn for a token")
        _check_vocab(self.vocab)
        object.__setattr__(self, "taus", _checked_taus(self.taus))

    def check_supports(self, tau: float, kind: str) -> None:
        """Raise ValueError, with the way out, for another divergence than the forward KL or tau."""
        _check_divergence(tau, kind)
        if kind != "forward":
            raise ValueError(
                f"divergence={kind}: sampled ids support the forward KL alone; "
                "set soft_targets=hidden, which supports every divergence"
            )
        _check_stored_tau(tau, self.taus)


SoftTargets = Hidden | Full | TopK | Sampled


def check_probed(soft_targets: SoftTargets, probe: ProbeSettings, tau: float) -> None:
    """Check that what a format loses was measured at a temperature, or that it loses nothing.

    Args:
        soft_targets: The format's settings.
        probe: The settings of the probe that stored them.
        tau: The temperature of distillation.

    Raises:
        ValueError: It was not, so that `max_gradient_bias` would have nothing to refuse.
    """
    if isinstance(soft_targets, TopK | Sampled):  # they are probed at taus of their own
        return
    if soft_targets.dtype == "float32" or tau in probe.taus:
        return
    probed = ", ".join(f"{each:g}" for each in probe.taus)
    raise ValueError(
        f"tau={tau:g}: what soft_targets={soft_targets.name} loses as {soft_targets.dtype} is "
        f"measured at {probed} alone; add it to taus, or set soft_targets.dtype=float32, "
        "which is exact"
    )


def _check_divergence(tau: float, kind: str) -> None:
    check_tau(tau)
    check_one_of("divergence", kind, DIVERGENCES)


def _check_stored_tau(tau: float, taus: Sequence[float]) -> None:
    if tau not in taus:
        stored = ", ".join(f"{each:g}" for each in taus)
        raise ValueError(
            f"tau={tau:g}: the soft targets are stored at {stored}; add it to soft_targets.taus, "
            "or set soft_targets=hidden, which supports every tau"
        )


def _check_vocab(vocab: int | None) -> None:
    if vocab is not None:
        what = "the ids that teacher and student have in common; null for the teacher's"
        check_whole("vocab", vocab, 1, what)


def _checked_taus(taus: object) -> tuple[float, ...]:
    """The temperatures as a tuple of floats; YAML and JSON give lists, and whole numbers."""
    if isinstance(taus, Sequence) and taus and all(_is_positive(tau) for tau in taus):
        return tuple(float(tau) for tau in taus)
    written = "null" if taus is None else taus
    raise ValueError(
        f"taus={written}: must be a list of one or more positive temperatures that soft "
        "targets are stored at, as in 'soft_targets.taus=[1,2,3,5]', the paper's sweep"
    )


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value > 0
