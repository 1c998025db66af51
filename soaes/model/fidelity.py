"""The fidelity of a format of soft targets: what it loses of the exact forward KL, on a sample.

# N tokens, D width of the teacher, V vocabulary, K ids kept of a token
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NotRequired, TypedDict

import torch

from soaes.metrics.bootstrap import student as student_t
from soaes.model import losses
from soaes.model.soft_targets import (
    Fields,
    Head,
    Sampled,
    SoftTargetFormat,
    TopK,
    bytes_per_token,
    logits_of,
)


class Errors(TypedDict):
    """What a format loses at one temperature, for one student."""

    entropy: float  # of the teacher, nats per token
    kl: float | None  # KL(teacher || reconstruction), nats per token; None if infinite, as where
    # few draws leave out an id
    gradient_bias: float  # |mean g - exact g| / |exact g|, less what chance alone would show, where
    # g is the gradient in the student's logits over the sample
    gradient_variance: float  # E|g - mean g|^2 / |exact g|^2
    along: float  # projection of mean g on the exact g, relative to |exact g|, less 1
    low: float | None  # 95 % interval of `along`; None for a format that draws nothing
    high: float | None


class Fidelity(Errors):
    """An entry of a teacher store's `fidelity`."""

    tau: float
    bytes: int  # of a token in the store
    smallest_k: NotRequired[int]  # of TopK: the k whose gradient is within 1 % of the exact one


def measure_fidelity(
    soft_targets: SoftTargetFormat,
    hidden_ND: torch.Tensor,
    head: Head,
    student_NV: torch.Tensor,
    taus: Sequence[float],
    repeats: int,
    generator: torch.Generator,
) -> list[Fidelity]:
    """Measure what a format loses of the forward KL, against the teacher itself.

    A format that draws is encoded `repeats` times. Its `gradient_bias` is uncertain by about
    sqrt(gradient_variance / repeats), so its bias is judged by the interval of `along`.

    Args:
        soft_targets: The format.
        hidden_ND: The teacher's final hidden states of a sample of tokens.
        head: The teacher's output head.
        student_NV: The student's logits of these tokens.
        taus: Temperatures to measure at.
        repeats: Encodings of a format that draws, at least 2.
        generator: Of the draws.

    Returns:
        An entry for each temperature.
    """
    num_encodings = repeats if isinstance(soft_targets, Sampled) else 1
    encodings = [soft_targets.encode(hidden_ND, head, generator) for _ in range(num_encodings)]
    vocab = logits_of(hidden_ND[:1], head).shape[1]
    width = hidden_ND.shape[1]
    entries: list[Fidelity] = []
    for tau in taus:
        errors = _errors(soft_targets, encodings, hidden_ND, head, student_NV, tau)
        size = bytes_per_token(soft_targets, width, vocab)
        entry: Fidelity = {"tau": float(tau), "bytes": size, **errors}
        if isinstance(soft_targets, TopK):
            entry["smallest_k"] = smallest_k(hidden_ND, head, student_NV, float(tau))
        entries.append(entry)
    return entries


def _errors(
    soft_targets: SoftTargetFormat,
    encodings: list[Fields],
    hidden_ND: torch.Tensor,
    head: Head,
    student_NV: torch.Tensor,
    tau: float,
) -> Errors:
    teacher_NV = logits_of(hidden_ND, head)
    vocab = teacher_NV.shape[1]
    head_VD = head if isinstance(head, torch.Tensor) else head.weight_VD  # of Hidden alone

    def exact_loss(student: torch.Tensor) -> torch.Tensor:
        return losses.kl_loss(teacher_NV, student, tau)

    exact_NV = _gradient(student_NV, exact_loss)
    exact_square = exact_NV.square().sum()
    count = len(encodings)
    mean_NV = torch.zeros_like(exact_NV)
    reconstruction_NV = torch.zeros_like(teacher_NV, dtype=torch.float64)
    squares = []
    projections = []
    for fields in encodings:

        def loss(student: torch.Tensor, fields: Fields = fields) -> torch.Tensor:
            return soft_targets.divergence(fields, head_VD, student, tau, "forward")

        gradient_NV = _gradient(student_NV, loss)
        mean_NV += gradient_NV / count
        reconstruction_NV += soft_targets.probabilities(fields, head_VD, vocab, tau) / count
        squares.append(gradient_NV.square().sum() / exact_square)
        projections.append(((gradient_NV * exact_NV).sum() / exact_square).item() - 1)

    along = statistics.mean(projections)
    variance = 0.0
    low = high = None
    if count > 1:
        mean_square = mean_NV.square().sum() / exact_square
        spread = (sum(squares) / count - mean_square).item()
        variance = spread * count / (count - 1)
        half_width = student_t(count - 1) * statistics.stdev(projections) / count**0.5
        low = along - half_width
        high = along + half_width
    error_square = ((mean_NV - exact_NV).square().sum() / exact_square).item()
    bias_square = error_square - variance / count
    return {
        "entropy": losses.entropy(teacher_NV, tau).item() / len(teacher_NV),
        "kl": _mean_kl(teacher_NV, reconstruction_NV, tau),
        "gradient_bias": max(0.0, bias_square) ** 0.5,
        "gradient_variance": variance,
        "along": along,
        "low": low,
        "high": high,
    }


def _gradient(
    student_NV: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The gradient of a loss in the student's logits, in float64."""
    with torch.enable_grad():
        student_NV = student_NV.detach().clone().requires_grad_()
        (gradient_NV,) = torch.autograd.grad(loss(student_NV), student_NV)
    return gradient_NV.double()


def _mean_kl(teacher_NV: torch.Tensor, reconstruction_NV: torch.Tensor, tau: float) -> float | None:
    p_NV = (teacher_NV.double() / tau).softmax(-1)
    kl_NV = torch.xlogy(p_NV, p_NV) - torch.xlogy(p_NV, reconstruction_NV.double())
    nats = kl_NV.sum(-1).mean().item()
    return nats if math.isfinite(nats) else None


def smallest_k(
    hidden_ND: torch.Tensor,
    head: Head,
    student_NV: torch.Tensor,
    tau: float,
    limit: float = 0.01,
) -> int:
    """Return the smallest k of TopK whose forward KL has nearly the exact gradient.

    On kept ids the gradient is exact. In the tail it is q - r q instead of q - p, where r is the
    quotient of the tails' masses, teacher's by student's.

    Args:
        hidden_ND: The teacher's final hidden states.
        head: The teacher's output head.
        student_NV: The student's logits.
        tau: Temperature.
        limit: Largest error of the gradient over the N tokens, relative to the exact gradient,
            before the rounding of stored logits.
    """
    vocab = logits_of(hidden_ND[:1], head).shape[1]
    error_V = torch.zeros(vocab, dtype=torch.float64, device=hidden_ND.device)
    exact = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
    for hidden_1D, student_1V in zip(hidden_ND.split(1), student_NV[:, :vocab].split(1)):
        teacher_V = logits_of(hidden_1D, head)[0].double()
        student_V = student_1V[0].double()
        p_V, order_V = (teacher_V / tau).softmax(-1).sort(descending=True)
        q_V = (student_V / tau).softmax(-1)[order_V]
        # Sums over the tail of each k = 0 .. V - 1.
        tail_p = _sums_from_each(p_V)
        tail_q = _sums_from_each(q_V)
        tail_pp = _sums_from_each(p_V**2)
        tail_pq = _sums_from_each(p_V * q_V)
        tail_qq = _sums_from_each(q_V**2)
        ratio_V = (tail_p / tail_q).masked_fill(tail_q == 0, 0.0)  # ids of probability 0 end it
        error_V += tail_pp - 2 * ratio_V * tail_pq + ratio_V**2 * tail_qq
        exact += (q_V - p_V).square().sum()
    is_within_V = (error_V.clamp_min(0) / exact).sqrt() < limit
    if not is_within_V[1:].any():
        return vocab
    return int(is_within_V[1:].nonzero()[0]) + 1


def _sums_from_each(values_V: torch.Tensor) -> torch.Tensor:
    """[V]: at index k the sum of values k .. V - 1."""
    return values_V.flip(-1).cumsum(-1).flip(-1)
