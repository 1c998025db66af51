"""Signal formats: what is kept of a teacher's distribution for each token, and the divergence that it still gives.

Pure functions of tensors: files are the teacher store's. `FORMATS[name](**settings)` is a format, its dataclass fields its settings.
Every format has
- `fields(width, vocab)`: per stored array its shape a token and its numpy dtype (bfloat16 is stored as the uint16 of its bits);
- `encode(hidden_ND, head_VD, generator)`: these arrays for N tokens, from final hidden states; logits = hidden @ head.T;
- `divergence(fields_N, head_VD, student_NV, tau, kind)`: its sum over N tokens in nats, differentiable in the student's logits;
- `probabilities(fields_N, head_VD, vocab, tau)`: the teacher's distribution as far as it can be had back, [N, V];
- `check_supports(tau, kind)`: ValueError, with the way out, for a temperature or a divergence that it cannot give.

# N tokens, D width, V vocabulary, K ids kept of a token, S temperatures, M draws of a token"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from soaes.metrics.bootstrap import student as student_t
from soaes.model import losses
from soaes.pipeline import validation

Fields = dict[str, torch.Tensor]
Shapes = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Hidden:
    """The final hidden states; the head is stored once. Exact at every tau, and V / D smaller than Full."""

    dtype: str = "float32"
    name: ClassVar[str] = "hidden"

    def __post_init__(self) -> None:
        validation.check(dtype=self.dtype)

    def fields(self, width: int, vocab: int) -> Shapes:
        return {"hidden": ((width,), _stored(self.dtype))}

    def encode(
        self, hidden_ND: torch.Tensor, head_VD: torch.Tensor, generator: Any = None
    ) -> Fields:
        return {"hidden": bits(hidden_ND, self.dtype)}

    def logits(self, fields_N: Fields, head_VD: torch.Tensor) -> torch.Tensor:
        return _logits(_values(fields_N["hidden"], self.dtype), head_VD)

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        return losses.DIVERGENCES[kind](self.logits(fields_N, head_VD), student_NV, tau)

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        return (self.logits(fields_N, head_VD).double() / tau).softmax(-1)

    def check_supports(self, tau: float, kind: str) -> None:
        validation.check_supports(vars(self), tau, kind)


@dataclass(frozen=True)
class Full(Hidden):
    """All logits. Exact at every tau, but for the rounding of `dtype`; needs no head."""

    name: ClassVar[str] = "full"

    def fields(self, width: int, vocab: int) -> Shapes:
        return {"logits": ((vocab,), _stored(self.dtype))}

    def encode(
        self, hidden_ND: torch.Tensor, head_VD: torch.Tensor, generator: Any = None
    ) -> Fields:
        return {"logits": bits(_logits(hidden_ND, head_VD), self.dtype)}

    def logits(self, fields_N: Fields, head_VD: torch.Tensor | None) -> torch.Tensor:
        return _values(fields_N["logits"], self.dtype)


@dataclass(frozen=True)
class TopK:
    """The k largest logits, less the largest; their ids; and at each of `taus` the log of the tail's mass, 1 - their sum.

    The log-normaliser follows: log p of a kept id is log_softmax(kept / tau) + log(1 - tail), which sums to 1 whatever dtype
    rounds. Every divergence is that of k + 1 shares, the last the tail's: a lower bound of the exact one (merging ids never adds
    to an f-divergence, Liese and Vajda 2006) that says nothing about how the student spreads its tail.
    vocab: the ids that teacher and student have in common, where they are padded differently; null: the teacher's."""

    k: int
    taus: Sequence[float]
    dtype: str = "float16"
    vocab: int | None = None
    name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        _settle(self)

    def fields(self, width: int, vocab: int) -> Shapes:
        kept = min(self.k, self.vocab or vocab)
        return {
            "logits": ((kept,), _stored(self.dtype)),
            "ids": ((kept,), _ids(self.vocab or vocab)),
            "tail": ((len(self.taus),), "float32"),
        }

    def encode(
        self, hidden_ND: torch.Tensor, head_VD: torch.Tensor, generator: Any = None
    ) -> Fields:
        logits_NV = _logits(hidden_ND, head_VD)[:, : self.vocab]
        kept_NK, ids_NK = logits_NV.topk(min(self.k, logits_NV.shape[1]))
        tail_NS = torch.stack(
            [losses.log_shares(logits_NV, ids_NK, tau)[:, -1] for tau in self.taus], dim=1
        )
        relative_NK = (
            kept_NK - kept_NK[:, :1]
        )  # near 0 where the mass is, and there a short float is fine
        return {
            "logits": bits(relative_NK, self.dtype),
            "ids": _narrow(ids_NK, logits_NV.shape[1]),
            "tail": tail_NS.float(),
        }

    def log_shares(self, fields_N: Fields, tau: float) -> torch.Tensor:
        """[N, K + 1]: the teacher's log-probabilities of the kept ids at tau and of the tail."""
        tail_N1 = fields_N["tail"][:, self.taus.index(tau), None]
        kept_NK = (_values(fields_N["logits"], self.dtype).float() / tau).log_softmax(-1)
        return torch.cat([kept_NK + torch.log1p(-tail_N1.exp()), tail_N1], dim=1)

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        student = losses.log_shares(student_NV[:, : self.vocab], fields_N["ids"].long(), tau)
        return losses.DIVERGENCES_OF_LOG_PROBS[kind](self.log_shares(fields_N, tau), student)

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        """With the tail spread evenly over the ids that are not kept."""
        shares = self.log_shares(fields_N, tau).exp()
        each_N1 = shares[:, -1:] / max(1, vocab - shares.shape[1] + 1)
        return each_N1.repeat(1, vocab).scatter_(1, fields_N["ids"].long(), shares[:, :-1])

    def check_supports(self, tau: float, kind: str) -> None:
        validation.check_supports(vars(self), tau, kind)


@dataclass(frozen=True)
class Sampled:
    """At each of `taus`, ids drawn from the teacher's own distribution, and its entropy: an unbiased forward KL at a size that does
    not grow with the vocabulary (Anshumann et al. 2025, "Sparse logit sampling", where the draws are independent).

    The draws are systematic: with u uniform in [0, 1) the ids at which the cumulated distribution passes (u + i) / draws,
    i = 0 .. draws - 1 (Madow 1949). (u + i) / draws of a random i is uniform in [0, 1), so the expected share of an id is its
    probability, as with independent draws; but its count is draws * p rounded up or down, so it varies by less than one draw.
    The reported KL is mean(-log q(ids)) - entropy, its gradient (q - shares of the draws) / tau. `vocab` as for TopK."""

    draws: int
    taus: Sequence[float]
    vocab: int | None = None
    name: ClassVar[str] = "sampled"

    def __post_init__(self) -> None:
        _settle(self)

    def fields(self, width: int, vocab: int) -> Shapes:
        return {
            "ids": ((len(self.taus), self.draws), _ids(self.vocab or vocab)),
            "entropy": ((len(self.taus),), "float32"),
        }

    def encode(
        self, hidden_ND: torch.Tensor, head_VD: torch.Tensor, generator: torch.Generator
    ) -> Fields:
        logits_NV = _logits(hidden_ND, head_VD)[:, : self.vocab]
        offset_NS = torch.rand(
            len(logits_NV),
            len(self.taus),
            dtype=torch.float64,
            generator=generator,
            device=generator.device,
        )
        drawn = [
            _systematic(logits_NV, tau, offset_N, self.draws)
            for tau, offset_N in zip(self.taus, offset_NS.to(logits_NV.device).T)
        ]
        ids_NSM, entropy_NS = (torch.stack(each, dim=1) for each in zip(*drawn))
        return {"ids": _narrow(ids_NSM, logits_NV.shape[1]), "entropy": entropy_NS.float()}

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        self.check_supports(tau, kind)  # whoever asks for another kind would be given this one
        at = self.taus.index(tau)
        logs_NM = losses.log_probabilities(
            student_NV[:, : self.vocab], fields_N["ids"][:, at].long(), tau
        )
        return -logs_NM.mean(1).sum() - fields_N["entropy"][:, at].sum()

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        """The shares of the draws."""
        ids_NM = fields_N["ids"][:, self.taus.index(tau)].long()
        each_NM = torch.full(ids_NM.shape, 1 / self.draws, device=ids_NM.device)
        return each_NM.new_zeros(len(ids_NM), vocab).scatter_add_(1, ids_NM, each_NM)

    def check_supports(self, tau: float, kind: str) -> None:
        validation.check_supports(vars(self), tau, kind)


FORMATS = {each.name: each for each in (Hidden, Full, TopK, Sampled)}


def bytes_per_token(soft_targets: Any, width: int, vocab: int) -> int:
    """What a token takes in a store of `format`, from shapes alone; the head, stored once, is not counted."""
    shapes = soft_targets.fields(width, vocab).values()
    return sum(
        torch.Size(shape).numel() * getattr(torch, dtype).itemsize for shape, dtype in shapes
    )


def _settle(soft_targets: Any) -> None:
    """Settings read from YAML or JSON: `taus` as a tuple of floats. ValueError for what is out of range."""
    validation.check(**vars(soft_targets))
    object.__setattr__(soft_targets, "taus", tuple(float(tau) for tau in soft_targets.taus))


def _systematic(
    logits_NV: torch.Tensor, tau: float, offset_N: torch.Tensor, draws: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids_NM and entropy_N in nats; in float64, so that the least probable id of a large vocabulary has its share of [0, 1)."""
    p_NV = (logits_NV.double() / tau).softmax(-1)
    cumulated_NV = p_NV.cumsum(-1)
    places_NM = (
        (offset_N[:, None] + torch.arange(draws, device=offset_N.device))
        / draws
        * cumulated_NV[:, -1:]
    )
    ids_NM = torch.searchsorted(cumulated_NV, places_NM, right=True).clamp_max(
        logits_NV.shape[1] - 1
    )
    return ids_NM, -torch.xlogy(p_NV, p_NV).sum(-1)


def _logits(hidden_ND: torch.Tensor, head_VD: torch.Tensor) -> torch.Tensor:
    """In at least float32, whatever autocast says: a store is exact, and so is what is made of it. A shorter head is widened at every call."""
    exact = torch.promote_types(hidden_ND.dtype, torch.float32)
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        return hidden_ND.to(exact) @ head_VD.to(exact).T


def _stored(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype


def bits(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    """As it is stored: numpy has no bfloat16."""
    values = tensor.to(getattr(torch, dtype))
    return values.view(torch.uint16) if dtype == "bfloat16" else values


def _values(stored: torch.Tensor, dtype: str) -> torch.Tensor:
    return stored.view(torch.bfloat16) if dtype == "bfloat16" else stored


def _ids(vocab: int) -> str:
    return "uint16" if vocab <= 2**16 else "uint32"


def _narrow(ids: torch.Tensor, vocab: int) -> torch.Tensor:
    return ids.to(getattr(torch, _ids(vocab)))


def fidelity(
    soft_targets: Any,
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    student_NV: torch.Tensor,
    taus: Sequence[float],
    repeats: int,
    generator: torch.Generator,
) -> list[dict[str, float | None]]:
    """At each of `taus` what `format` loses of the forward KL of N tokens, against the teacher itself and for this student:

    bytes: a token's; entropy: the teacher's, nats a token; kl: KL(teacher || what is had back), nats a token, None where an id of the
    teacher's is had back as impossible, as after few draws; gradient_bias: |mean g - exact g| / |exact g| with g the gradient in the
    student's logits over the sample, less what chance alone would show; gradient_variance: E|g - mean g|^2 / |exact g|^2.
    Draws are encoded `repeats` times (at least 2), and their bias is judged by `along`: the projection of mean g on the exact g, less 1,
    with its 95 % interval (low, high), since gradient_bias is uncertain by some sqrt(gradient_variance / repeats). Others: None.
    smallest_k: of top-k, the k from which the gradient is within 1 % of the exact one."""
    kept = [
        soft_targets.encode(hidden_ND, head_VD, generator)
        for _ in range(repeats if isinstance(soft_targets, Sampled) else 1)
    ]
    taken = {"bytes": bytes_per_token(soft_targets, head_VD.shape[1], head_VD.shape[0])}
    lost = [
        {
            "tau": float(tau),
            **taken,
            **_lost(soft_targets, kept, hidden_ND, head_VD, student_NV, tau),
        }
        for tau in taus
    ]
    if isinstance(soft_targets, TopK):
        return [
            line | {"smallest_k": smallest_k(hidden_ND, head_VD, student_NV, line["tau"])}
            for line in lost
        ]
    return lost


def _lost(
    soft_targets: Any,
    kept: list[Fields],
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    student_NV: torch.Tensor,
    tau: float,
) -> dict:
    teacher_NV = _logits(hidden_ND, head_VD)
    exact_NV = _gradient(student_NV, lambda student: losses.kl_loss(teacher_NV, student, tau))
    size, times = exact_NV.square().sum(), len(kept)
    mean_NV, back_NV, squares, along = (
        torch.zeros_like(exact_NV),
        torch.zeros_like(teacher_NV, dtype=torch.float64),
        [],
        [],
    )
    for fields in kept:
        gradient_NV = _gradient(
            student_NV,
            lambda student: soft_targets.divergence(fields, head_VD, student, tau, "forward"),
        )  # noqa: B023
        mean_NV += gradient_NV / times
        back_NV += soft_targets.probabilities(fields, head_VD, teacher_NV.shape[1], tau) / times
        squares.append(gradient_NV.square().sum() / size)
        along.append(((gradient_NV * exact_NV).sum() / size).item() - 1)
    variance = (
        (sum(squares) / times - mean_NV.square().sum() / size).item() * times / (times - 1)
        if times > 1
        else 0.0
    )
    bias = ((mean_NV - exact_NV).square().sum() / size).item() - variance / times
    half = student_t(times - 1) * statistics.stdev(along) / times**0.5 if times > 1 else math.nan
    middle = statistics.mean(along)
    return {
        "entropy": losses.entropy(teacher_NV, tau).item() / len(teacher_NV),
        "kl": _kl(teacher_NV, back_NV, tau),
        "gradient_bias": max(0.0, bias) ** 0.5,
        "gradient_variance": variance,
        "along": middle,
        "low": middle - half if times > 1 else None,
        "high": middle + half if times > 1 else None,
    }


def _gradient(
    student_NV: torch.Tensor, divergence: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    with torch.enable_grad():
        student = student_NV.detach().clone().requires_grad_()
        return torch.autograd.grad(divergence(student), student)[0].double()


def _kl(teacher_NV: torch.Tensor, back_NV: torch.Tensor, tau: float) -> float | None:
    p_NV = (teacher_NV.double() / tau).softmax(-1)
    nats = (torch.xlogy(p_NV, p_NV) - torch.xlogy(p_NV, back_NV.double())).sum(-1).mean().item()
    return nats if math.isfinite(nats) else None


def smallest_k(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    student_NV: torch.Tensor,
    tau: float,
    limit: float = 0.01,
) -> int:
    """The smallest k of TopK whose forward KL has a gradient within `limit` (relative, over the N tokens, before rounding) of the exact one.

    On kept ids the gradient is exact; in the tail it is q - r q instead of q - p, r the quotient of the tails' masses."""
    error_V, exact = torch.zeros(len(head_VD), dtype=torch.float64, device=head_VD.device), 0.0
    for hidden_1D, student_1V in zip(hidden_ND.split(1), student_NV[:, : len(head_VD)].split(1)):
        p_V, q_V = (
            (logits[0].double() / tau).softmax(-1)
            for logits in (_logits(hidden_1D, head_VD), student_1V)
        )
        p_V, order_V = p_V.sort(descending=True)
        q_V = q_V[order_V]
        p, q, pp, pq, qq = (
            each.flip(-1).cumsum(-1).flip(-1) for each in (p_V, q_V, p_V**2, p_V * q_V, q_V**2)
        )  # beyond k = 0 .. V - 1
        error_V += pp - 2 * (p / q) * pq + (p / q) ** 2 * qq
        exact += (q_V - p_V).square().sum()
    within = (error_V.clamp_min(0) / exact).sqrt() < limit
    return int(within[1:].nonzero()[0]) + 1 if within[1:].any() else len(head_VD)
