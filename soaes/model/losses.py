"""Cross-entropy and the divergences of distillation as pure functions of logits: Eq. 1 and 2 of the paper.

Every loss is a sum; the caller divides by the tokens of the whole step, so that a step has one loss whatever its micro-batches.
Cross-entropy, Eq. 1 and what the small formats read of a student have their gradients written out: each keeps one [N, V], which its
backward pass turns into the gradient in place; autograd would pass over [N, V] up to thrice as often.

# N tokens that bear loss, V vocabulary, K ids of each token, S = K + 1 shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from soaes.pipeline import validation


def cross_entropy(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Sum over N tokens of -log softmax(logits)[label], in nats. L_SFT is its mean."""
    return -log_probabilities(logits_NV, labels_N[:, None], 1.0).sum()


def kl(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Eq. 1: sum over N tokens of KL(teacher || student) at temperature tau, in nats; its gradient is (q - p) / tau.

    The paper has no tau**2 factor, so there is none here. Vocabularies padded to different sizes are compared on the common ids.
    The teacher is a constant."""
    return _ForwardKL.apply(*_common(teacher_NV, student_NV, tau), tau)


def reverse_kl(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Sum over N tokens of KL(student || teacher) at tau, in nats: where the student puts mass that the teacher does not."""
    return OF_LOGS["reverse"](*_logs(teacher_NV, student_NV, tau))


def total_variation(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Sum over N tokens of 1 - overlap = 1 - sum min(p, q) = sum |p - q| / 2, in [0, 1] a token.

    The overlap is what a drafted token is accepted with (Leviathan et al. 2023, "Fast inference from transformers via speculative
    decoding", corollary 3.6), so at tau = 1 this is what acceptance rewards."""
    return OF_LOGS["total_variation"](*_logs(teacher_NV, student_NV, tau))


DIVERGENCES: dict[str, Callable[..., torch.Tensor]] = {
    "forward": kl,
    "reverse": reverse_kl,
    "total_variation": total_variation,
}
OF_LOGS: dict[
    str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
] = {  # the same, of log-probabilities: there is no more to normalise
    "forward": lambda teacher, student: F.kl_div(
        student, teacher, reduction="sum", log_target=True
    ),
    "reverse": lambda teacher, student: F.kl_div(
        teacher, student, reduction="sum", log_target=True
    ),
    "total_variation": lambda teacher, student: (teacher.exp() - student.exp()).clamp_min(0).sum(),
}


def entropy(logits_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Sum over N tokens of the entropy of softmax(logits / tau), in nats: how much a temperature leaves of what a teacher knows."""
    validation.check(tau=tau)
    logs = F.log_softmax(_exact(logits_NV) / tau, dim=-1)
    return -(logs.exp() * logs).sum()


def distillation(
    divergence: Callable[[torch.Tensor], torch.Tensor],
    student_NV: torch.Tensor,
    labels_N: torch.Tensor,
    alpha: float,
    tau: float,
    tau_squared: bool = False,
) -> torch.Tensor:
    """Eq. 2: alpha * L_KL + (1 - alpha) * L_SFT, summed over N tokens. alpha = 0 is plain SFT, to the bit.

    divergence: L_KL of the student's logits at tau: `kl` of a teacher's, or what a signal format makes of what it kept.
    tau_squared: L_KL times tau**2, which keeps its gradient's size at any tau (Hinton et al. 2015, section 2); the paper has it not."""
    validation.check(alpha=alpha, tau=tau)
    if alpha == 0:
        return cross_entropy(student_NV, labels_N)
    loss = alpha * divergence(student_NV) * (tau**2 if tau_squared else 1)
    return loss if alpha == 1 else loss + (1 - alpha) * cross_entropy(student_NV, labels_N)


def log_probabilities(logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float) -> torch.Tensor:
    """log softmax(logits / tau) at K ids of each token, in nats; an id may stand there more than once."""
    validation.check(tau=tau)
    return _LogProbabilities.apply(_exact(logits_NV), ids_NK, tau)


def log_shares(logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float) -> torch.Tensor:
    """[N, S]: log softmax(logits / tau) at K different ids of each token, and last the log of what all others have together."""
    validation.check(tau=tau)
    return _LogShares.apply(_exact(logits_NV), ids_NK, tau)


def _exact(logits_NV: torch.Tensor) -> torch.Tensor:
    return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))


def _common(
    teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float
) -> tuple[torch.Tensor, torch.Tensor]:
    validation.check(tau=tau)
    common = min(teacher_NV.shape[-1], student_NV.shape[-1])
    return _exact(teacher_NV[:, :common]), _exact(student_NV[:, :common])


def _logs(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> list[torch.Tensor]:
    return [F.log_softmax(logits / tau, dim=-1) for logits in _common(teacher_NV, student_NV, tau)]


def _softmax(logits_NV: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(logits / tau), and the log of its largest probability less the largest logit / tau: minus the log of the normaliser."""
    p_NV = (logits_NV if tau == 1 else logits_NV / tau).softmax(-1)
    return p_NV, p_NV.amax(-1).log() - logits_NV.amax(-1) / tau


class _ForwardKL(torch.autograd.Function):
    """sum p (log p - log q) of softmaxes at tau; d/d student = (q - p) / tau."""

    @staticmethod
    def forward(
        ctx: Any, teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float
    ) -> torch.Tensor:
        (p_NV, less_teacher_N), (q_NV, less_student_N) = (
            _softmax(teacher_NV, tau),
            _softmax(student_NV, tau),
        )
        loss_N = (
            (teacher_NV - student_NV).mul_(p_NV).sum(-1) / tau + less_teacher_N - less_student_N
        )
        ctx.save_for_backward(q_NV.sub_(p_NV))
        ctx.tau = tau
        return loss_N.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        return (
            None,
            ctx.saved_tensors[0].mul_(grad / ctx.tau),
            None,
        )  # in place: a second backward is an error, not a wrong number


class _LogProbabilities(torch.autograd.Function):
    """log q at K ids, q the softmax at tau; d log q_i / d z_j = ([i = j] - q_j) / tau."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float
    ) -> torch.Tensor:
        q_NV, less_normaliser_N = _softmax(logits_NV, tau)
        ctx.save_for_backward(q_NV, ids_NK)
        ctx.tau = tau
        return (
            logits_NV.gather(1, ids_NK) / tau + less_normaliser_N[:, None]
        )  # not log q, where q may be 0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NK: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (q_NV, ids_NK), grad_NK = ctx.saved_tensors, grad_NK / ctx.tau
        return (
            q_NV.mul_(-grad_NK.sum(-1, keepdim=True)).scatter_add_(1, ids_NK, grad_NK),
            None,
            None,
        )  # in place, as above


class _LogShares(torch.autograd.Function):
    """log q at K ids, and of all others R as one: d log sum_R q / d z_j = ([j in R] q_j / sum_R q - q_j) / tau."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float
    ) -> torch.Tensor:
        q_NV, less_normaliser_N = _softmax(logits_NV, tau)
        kept_NK = logits_NV.gather(1, ids_NK) / tau + less_normaliser_N[:, None]
        others_NV = q_NV.scatter_(
            1, ids_NK, torch.zeros_like(kept_NK)
        )  # a number in place of the zeros takes thrice the time
        rest_N1 = others_NV.sum(-1, keepdim=True).clamp_min(
            torch.finfo(q_NV.dtype).tiny
        )  # 1 - the sum of the kept would cancel
        ctx.save_for_backward(others_NV, ids_NK, kept_NK, rest_N1)
        ctx.tau = tau
        return torch.cat([kept_NK, rest_N1.log()], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NS: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (others_NV, ids_NK, kept_NK, rest_N1), grad_NS = ctx.saved_tensors, grad_NS / ctx.tau
        total_N1 = grad_NS.sum(-1, keepdim=True)
        to_kept_NK = torch.addcmul(grad_NS[:, :-1], kept_NK.exp(), total_N1, value=-1)
        return (
            others_NV.mul_(grad_NS[:, -1:] / rest_N1 - total_N1).scatter_(1, ids_NK, to_kept_NK),
            None,
            None,
        )  # in place, as above
