"""Formats of soft targets: what is stored of a teacher's distribution for each token.

Each format encodes the teacher's output, and computes the distillation loss from what it stored.
These are pure functions of tensors; files are the teacher store's concern (data.teacher_store).
The settings of each format, with their checks, are in model.settings.

# N tokens, D width of the teacher, V vocabulary, K ids kept of a token
# S temperatures, M draws of a token and temperature
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Protocol

import torch

from soaes.model import losses, settings
from soaes.model.output_head import OutputHead

Fields = dict[str, torch.Tensor]  # name -> array [N, *shape]
Shapes = dict[str, tuple[tuple[int, ...], str]]  # name -> (shape of one token, numpy dtype)
Head = torch.Tensor | OutputHead  # an output matrix [V, D], or what else a model has behind it

DRAWN_TOKENS = 256  # tokens whose ids are drawn at once


class SoftTargetFormat(Protocol):
    """What every format has; see `logits_of` for how logits are computed."""

    name: ClassVar[str]

    def fields(self, width: int, vocab: int) -> Shapes:
        """Return the arrays that are stored: the shape of one token, and the numpy dtype.

        bfloat16 is stored as the uint16 of its bits.

        Args:
            width: The teacher's hidden size.
            vocab: The teacher's number of logits.
        """
        ...

    def encode(
        self,
        hidden_ND: torch.Tensor,
        head: Head,
        generator: torch.Generator | None = None,
    ) -> Fields:
        """Return the arrays of N tokens.

        Args:
            hidden_ND: The teacher's final hidden states.
            head: The teacher's output head.
            generator: For a format that draws.
        """
        ...

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        """Return the divergence between teacher and student, summed over N tokens, in nats.

        With kind = "forward" it is L_KL of Eq. 1 (`losses.kl_loss`), exact or as the format
        approximates it. It is differentiable in the student's logits.

        Args:
            fields_N: What `encode` returned.
            head_VD: The teacher's output matrix, for formats that need it.
            student_NV: The student's logits.
            tau: Temperature, one that the format supports.
            kind: `forward`, `reverse` or `total_variation`.
        """
        ...

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        """Return [N, V]: the teacher's distribution at tau, as far as it can be reconstructed."""
        ...

    def check_supports(self, tau: float, kind: str) -> None:
        """Raise ValueError, with the way out, for an unsupported temperature or divergence."""
        ...


@dataclasses.dataclass(frozen=True)
class Hidden(settings.Hidden):
    """The final hidden states; the output matrix is stored once.

    Exact at every tau, and V / D times smaller than Full.
    """

    def fields(self, width: int, vocab: int) -> Shapes:
        return {"hidden": ((width,), _stored_dtype(self.dtype))}

    def encode(
        self,
        hidden_ND: torch.Tensor,
        head: Head,
        generator: torch.Generator | None = None,
    ) -> Fields:
        return {"hidden": bits(hidden_ND, self.dtype)}

    def logits(self, fields_N: Fields, head_VD: torch.Tensor | None) -> torch.Tensor:
        """Return the teacher's logits [N, V]."""
        assert head_VD is not None  # the store has it
        return logits_of(from_bits(fields_N["hidden"], self.dtype), head_VD)

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        teacher_NV = self.logits(fields_N, head_VD)
        return losses.DIVERGENCES[kind](teacher_NV, student_NV, tau)

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        teacher_NV = self.logits(fields_N, head_VD).double()
        return (teacher_NV / tau).softmax(-1)


@dataclasses.dataclass(frozen=True)
class Full(settings.Full):
    """All logits, as the paper stored them. Exact at every tau but for the rounding of `dtype`."""

    def fields(self, width: int, vocab: int) -> Shapes:
        return {"logits": ((vocab,), _stored_dtype(self.dtype))}

    def encode(
        self,
        hidden_ND: torch.Tensor,
        head: Head,
        generator: torch.Generator | None = None,
    ) -> Fields:
        return {"logits": bits(logits_of(hidden_ND, head), self.dtype)}

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        teacher_NV = from_bits(fields_N["logits"], self.dtype)
        return losses.DIVERGENCES[kind](teacher_NV, student_NV, tau)

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        teacher_NV = from_bits(fields_N["logits"], self.dtype).double()
        return (teacher_NV / tau).softmax(-1)


@dataclasses.dataclass(frozen=True)
class TopK(settings.TopK):
    """The k largest logits, their ids, and at each of `taus` the log of the tail's mass.

    Logits are stored less the largest. The tail's mass is 1 - the sum of the kept probabilities,
    and the log-normaliser follows from it: log p of a kept id is log_softmax(kept / tau) +
    log(1 - tail), so that the shares sum to 1 whatever the rounding of `dtype`.

    Every divergence is that of k + 1 shares, the last being the tail's. It is a lower bound of the
    exact one (merging ids never increases an f-divergence, Liese and Vajda 2006), and does not
    depend on how the student spreads its tail.
    """

    def fields(self, width: int, vocab: int) -> Shapes:
        ids = self.vocab or vocab
        num_kept = min(self.k, ids)
        return {
            "logits": ((num_kept,), _stored_dtype(self.dtype)),
            "ids": ((num_kept,), _id_dtype(ids)),
            "tail": ((len(self.taus),), "float32"),
        }

    def encode(
        self,
        hidden_ND: torch.Tensor,
        head: Head,
        generator: torch.Generator | None = None,
    ) -> Fields:
        logits_NV = logits_of(hidden_ND, head)[:, : self.vocab]
        vocab = logits_NV.shape[1]
        kept_NK, ids_NK = logits_NV.topk(min(self.k, vocab))
        tails = [losses.log_shares(logits_NV, ids_NK, tau)[:, -1] for tau in self.taus]
        tail_NS = torch.stack(tails, dim=1)
        # Near 0 where the mass is, so that 16 bits suffice there.
        relative_NK = kept_NK - kept_NK[:, :1]
        return {
            "logits": bits(relative_NK, self.dtype),
            "ids": _narrow_ids(ids_NK, vocab),
            "tail": bits(tail_NS, "float32"),
        }

    def log_shares(self, fields_N: Fields, tau: float) -> torch.Tensor:
        """Return [N, K + 1]: the teacher's log-probabilities of the kept ids and of the tail."""
        tau_index = self.taus.index(tau)
        tail_N1 = fields_N["tail"][:, tau_index, None]
        logits_NK = from_bits(fields_N["logits"], self.dtype).float()
        kept_NK = (logits_NK / tau).log_softmax(-1)
        return torch.cat([kept_NK + torch.log1p(-tail_N1.exp()), tail_N1], dim=1)

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        ids_NK = fields_N["ids"].long()
        student_shares = losses.log_shares(student_NV[:, : self.vocab], ids_NK, tau)
        teacher_shares = self.log_shares(fields_N, tau)
        return losses.DIVERGENCES_OF_LOG_PROBS[kind](teacher_shares, student_shares)

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        """Return [N, V], with the tail spread evenly over the ids that are not kept."""
        shares = self.log_shares(fields_N, tau).exp()
        kept_NK = shares[:, :-1]
        tail_ids = vocab - kept_NK.shape[1]
        tail_share_N1 = shares[:, -1:] / max(1, tail_ids)
        return tail_share_N1.repeat(1, vocab).scatter_(1, fields_N["ids"].long(), kept_NK)


@dataclasses.dataclass(frozen=True)
class Sampled(settings.Sampled):
    """At each of `taus`, ids drawn from the teacher's distribution, and its entropy.

    It gives an unbiased forward KL at a size that does not grow with the vocabulary (Anshumann et
    al. 2025, "Sparse logit sampling", with independent draws). The reported KL is
    mean(-log q(ids)) - entropy; its gradient is (q - shares of the draws) / tau.

    The draws are systematic (Madow 1949): with u uniform in [0, 1), they are the ids at which the
    cumulative distribution passes (u + i) / draws, i = 0 .. draws - 1. For a random i,
    (u + i) / draws is uniform in [0, 1), so the expected share of an id is its probability, as with
    independent draws. But its count is draws * p rounded up or down, so it varies by less than one.
    """

    def fields(self, width: int, vocab: int) -> Shapes:
        return {
            "ids": ((len(self.taus), self.draws), _id_dtype(self.vocab or vocab)),
            "entropy": ((len(self.taus),), "float32"),
        }

    def encode(
        self,
        hidden_ND: torch.Tensor,
        head: Head,
        generator: torch.Generator | None = None,
    ) -> Fields:
        assert generator is not None
        logits_NV = logits_of(hidden_ND, head)[:, : self.vocab]
        offset_NS = torch.rand(
            len(logits_NV),
            len(self.taus),
            dtype=torch.float64,
            generator=generator,
            device=generator.device,
        )
        offset_NS = offset_NS.to(logits_NV.device)
        ids, entropies = [], []
        for tau, offset_N in zip(self.taus, offset_NS.T):
            ids_NM, entropy_N = systematic_draws(logits_NV, tau, offset_N, self.draws)
            ids.append(ids_NM)
            entropies.append(entropy_N)
        ids_NSM = torch.stack(ids, dim=1)
        entropy_NS = torch.stack(entropies, dim=1)
        return {
            "ids": _narrow_ids(ids_NSM, logits_NV.shape[1]),
            "entropy": bits(entropy_NS, "float32"),
        }

    def divergence(
        self,
        fields_N: Fields,
        head_VD: torch.Tensor | None,
        student_NV: torch.Tensor,
        tau: float,
        kind: str,
    ) -> torch.Tensor:
        self.check_supports(tau, kind)  # any other kind would silently be the forward KL
        tau_index = self.taus.index(tau)
        ids_NM = fields_N["ids"][:, tau_index].long()
        entropy_N = fields_N["entropy"][:, tau_index]
        log_probs_NM = losses.log_probabilities(student_NV[:, : self.vocab], ids_NM, tau)
        return -log_probs_NM.mean(1).sum() - entropy_N.sum()

    def probabilities(
        self, fields_N: Fields, head_VD: torch.Tensor | None, vocab: int, tau: float
    ) -> torch.Tensor:
        """Return [N, V]: the shares of the draws."""
        ids_NM = fields_N["ids"][:, self.taus.index(tau)].long()
        share_NM = torch.full(ids_NM.shape, 1 / self.draws, device=ids_NM.device)
        return share_NM.new_zeros(len(ids_NM), vocab).scatter_add_(1, ids_NM, share_NM)


FORMATS: dict[str, type[Hidden | Full | TopK | Sampled]] = {
    "hidden": Hidden,
    "full": Full,
    "topk": TopK,
    "sampled": Sampled,
}


def from_settings(soft_targets: settings.SoftTargets) -> SoftTargetFormat:
    """Return the format of settings that conf/soft_targets built."""
    return FORMATS[soft_targets.name](**vars(soft_targets))


def bytes_per_token(soft_targets: SoftTargetFormat, width: int, vocab: int) -> int:
    """Return the bytes of a token in a store, without the output matrix, which is stored once.

    Args:
        soft_targets: The format.
        width: The teacher's hidden size.
        vocab: The teacher's number of logits.
    """
    total = 0
    for shape, dtype in soft_targets.fields(width, vocab).values():
        total += torch.Size(shape).numel() * getattr(torch, dtype).itemsize
    return total


def systematic_draws(
    logits_NV: torch.Tensor, tau: float, offset_N: torch.Tensor, draws: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ids from softmax(logits / tau); see Sampled.

    In float64, so that the least probable id of a large vocabulary keeps its share of [0, 1); over
    some tokens at a time, since that takes six times the bytes of their logits.

    Args:
        logits_NV: The teacher's logits.
        tau: Temperature.
        offset_N: u of each token, uniform in [0, 1).
        draws: Ids of each token.

    Returns:
        ids_NM, and entropy_N in nats.
    """
    chunks = zip(logits_NV.split(DRAWN_TOKENS), offset_N.split(DRAWN_TOKENS))
    parts = [_draws(logits_CV, tau, offset_C, draws) for logits_CV, offset_C in chunks]
    return torch.cat([ids_CM for ids_CM, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _draws(
    logits_NV: torch.Tensor, tau: float, offset_N: torch.Tensor, draws: int
) -> tuple[torch.Tensor, torch.Tensor]:
    p_NV = (logits_NV.double() / tau).softmax(-1)
    cumulative_NV = p_NV.cumsum(-1)
    steps_M = torch.arange(draws, device=offset_N.device)
    quantiles_NM = (offset_N[:, None] + steps_M) / draws * cumulative_NV[:, -1:]
    ids_NM = torch.searchsorted(cumulative_NV, quantiles_NM, right=True)
    ids_NM = ids_NM.clamp_max(logits_NV.shape[1] - 1)
    return ids_NM, -torch.xlogy(p_NV, p_NV).sum(-1)


def logits_of(hidden_ND: torch.Tensor, head: Head) -> torch.Tensor:
    """Return the logits in at least float32, whatever autocast says: a store is exact.

    A head of fewer bits is widened at every call.
    """
    if isinstance(head, torch.Tensor):
        head = OutputHead(head)
    dtype = torch.promote_types(hidden_ND.dtype, torch.float32)
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        states, matrix = head.matrix_inputs(hidden_ND)
        return head.finish(states.to(dtype) @ matrix.to(dtype).T)


def _stored_dtype(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype


def bits(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return a tensor as it is stored in `dtype`: numpy has no bfloat16.

    Raises:
        ValueError: A value is not a number, or beyond the range of `dtype`; -inf, the logit of a
            probability of 0, is kept.
    """
    values = tensor.to(getattr(torch, dtype))
    is_kept = torch.isfinite(values) | (tensor == -math.inf)
    if not is_kept.all():
        lost = tensor[~is_kept][0].item()
        if math.isfinite(lost):
            way_out = f"it is beyond the range of dtype={dtype}; set soft_targets.dtype=float32"
        else:
            way_out = "its weights are damaged, or it overflows in its own dtype"
        raise ValueError(f"the teacher computes {lost:g}: {way_out}")
    return values.view(torch.uint16) if dtype == "bfloat16" else values


def from_bits(stored: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return the values of a tensor that is stored as `bits` says."""
    return stored.view(torch.bfloat16) if dtype == "bfloat16" else stored


def _id_dtype(vocab: int) -> str:
    return "uint16" if vocab <= 2**16 else "uint32"


def _narrow_ids(ids: torch.Tensor, vocab: int) -> torch.Tensor:
    return ids.to(getattr(torch, _id_dtype(vocab)))
