"""Cross-entropy and the distillation losses, as pure functions of logits: Eq. 1 and Eq. 2.

    Eq. 1  `kl_loss`            L_KL = KL(softmax(teacher / tau) || softmax(student / tau))
    Eq. 2  `distillation_loss`  L    = alpha * L_KL + (1 - alpha) * L_SFT
           `cross_entropy`      L_SFT

Every loss is a sum over tokens, in nats. The caller divides by the loss tokens of the whole
optimizer step, so that the loss of a step does not depend on its micro-batches.

A logit of -inf is a probability of 0, and a term of a divergence whose probability is 0 is 0, even
where its log is not finite: 0 log 0 = 0.

Three autograd functions have handwritten gradients: the forward KL divergence, log-probabilities
of K ids, and log-probabilities of K ids and the tail. Each saves one [N, V] tensor, and its
backward pass turns this tensor into the gradient in place; autograd would make up to three times
as many passes over [N, V].

# N tokens that bear loss, V vocabulary, K ids of each token
# S = K + 1 shares of each token: K kept ids, then the tail (all other ids together)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from soaes.pipeline.validation import check_alpha, check_tau


def cross_entropy(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Return L_SFT of Eq. 2: the sum over N tokens of -log softmax(logits)[label], in nats."""
    label_log_probs_N1 = log_probabilities(logits_NV, labels_N[:, None], 1.0)
    return -label_log_probs_N1.sum()


def kl_loss(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Return L_KL of Eq. 1: the sum over N tokens of KL(teacher || student) at temperature tau.

    The gradient in the student's logits is (q - p) / tau, with p and q the softmaxes of teacher
    and student at tau. The paper has no factor tau**2, so there is none here.

    Args:
        teacher_NV: Teacher logits. They are constants: no gradient flows into them.
        student_NV: Student logits. Where the two vocabularies are padded to different sizes, the
            ids that both have are compared.
        tau: Temperature, positive.

    Returns:
        A scalar, in nats.
    """
    teacher_NV, student_NV = _common_vocabulary(teacher_NV, student_NV, tau)
    return _ForwardKL.apply(teacher_NV, student_NV, tau)


def reverse_kl(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the sum over N tokens of KL(student || teacher) at temperature tau, in nats.

    It penalises mass that the student puts where the teacher has none. Not in the paper.
    """
    return reverse_kl_of_log_probs(*_log_softmaxes(teacher_NV, student_NV, tau))


def total_variation(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the sum over N tokens of the total variation distance at temperature tau.

    It is 1 - sum min(p, q) = sum |p - q| / 2, in [0, 1] per token. Speculative decoding accepts a
    drafted token with probability sum min(p, q) (Leviathan et al. 2023, "Fast inference from
    transformers via speculative decoding", corollary 3.6), so at tau = 1 this loss is the
    rejection rate. Not in the paper.
    """
    return total_variation_of_log_probs(*_log_softmaxes(teacher_NV, student_NV, tau))


def forward_kl_of_log_probs(teacher_NS: torch.Tensor, student_NS: torch.Tensor) -> torch.Tensor:
    """Return Eq. 1 from log-probabilities of S shares."""
    return _sum_p_log_ratio(teacher_NS, student_NS)


def reverse_kl_of_log_probs(teacher_NS: torch.Tensor, student_NS: torch.Tensor) -> torch.Tensor:
    """Return `reverse_kl` from log-probabilities of S shares."""
    return _sum_p_log_ratio(student_NS, teacher_NS)


def _sum_p_log_ratio(log_p_NS: torch.Tensor, log_q_NS: torch.Tensor) -> torch.Tensor:
    """The sum of p (log p - log q)."""
    p_NS = log_p_NS.exp()
    log_ratio_NS = (log_p_NS - log_q_NS).masked_fill(p_NS == 0, 0.0)
    return (p_NS * log_ratio_NS).sum()


def total_variation_of_log_probs(
    teacher_NS: torch.Tensor, student_NS: torch.Tensor
) -> torch.Tensor:
    """Return `total_variation` from log-probabilities of S shares."""
    excess_NS = teacher_NS.exp() - student_NS.exp()
    return excess_NS.clamp_min(0).sum()


# What `distill.module.divergence` selects: functions of logits and tau,
DIVERGENCES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "forward": kl_loss,
    "reverse": reverse_kl,
    "total_variation": total_variation,
}
# and the same divergences of log-probabilities that are normalised already.
DIVERGENCES_OF_LOG_PROBS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "forward": forward_kl_of_log_probs,
    "reverse": reverse_kl_of_log_probs,
    "total_variation": total_variation_of_log_probs,
}


def distillation_loss(
    soft_target_loss: torch.Tensor | None,
    student_NV: torch.Tensor,
    labels_N: torch.Tensor,
    alpha: float,
    tau: float,
    tau_squared: bool = False,
) -> torch.Tensor:
    """Return Eq. 2: alpha * L_KL + (1 - alpha) * L_SFT, summed over N tokens, in nats.

    alpha = 0 is plain SFT to the bit, alpha = 1 is distillation alone.

    Args:
        soft_target_loss: L_KL at tau, a scalar that depends on `student_NV`: `kl_loss`, or what a
            soft-target format computes from what it stored. None is allowed where alpha = 0.
        student_NV: Student logits.
        labels_N: Token ids.
        alpha: KD weight in [0, 1].
        tau: Temperature of L_KL, positive.
        tau_squared: Multiply L_KL by tau**2, which keeps the size of its gradient at any tau
            (Hinton et al. 2015, section 2). The paper omits this factor.
    """
    check_alpha(alpha)
    check_tau(tau)
    if alpha == 0:
        return cross_entropy(student_NV, labels_N)
    if soft_target_loss is None:
        raise ValueError(f"alpha={alpha}: the loss needs soft_target_loss; only alpha=0 does not")
    weighted_kl = alpha * soft_target_loss * (tau**2 if tau_squared else 1)
    if alpha == 1:
        return weighted_kl
    return weighted_kl + (1 - alpha) * cross_entropy(student_NV, labels_N)


def entropy(logits_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the sum over N tokens of the entropy of softmax(logits / tau), in nats."""
    check_tau(tau)
    log_probs_NV = F.log_softmax(_at_least_float32(logits_NV) / tau, dim=-1)
    p_NV = log_probs_NV.exp()
    return -(p_NV * log_probs_NV).masked_fill_(p_NV == 0, 0.0).sum()


def log_probabilities(logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float) -> torch.Tensor:
    """Return [N, K]: log softmax(logits / tau) at K ids of each token, in nats.

    An id may occur more than once.
    """
    check_tau(tau)
    return _LogProbabilities.apply(_at_least_float32(logits_NV), ids_NK, tau)


def log_shares(logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float) -> torch.Tensor:
    """Return [N, S]: log softmax(logits / tau) at K distinct ids, and last the log of the tail.

    The tail is the probability mass of all other ids together.
    """
    check_tau(tau)
    return _LogShares.apply(_at_least_float32(logits_NV), ids_NK, tau)


def _at_least_float32(logits_NV: torch.Tensor) -> torch.Tensor:
    return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))


def _common_vocabulary(
    teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check tau, and cut both to the ids that they have in common."""
    check_tau(tau)
    common = min(teacher_NV.shape[-1], student_NV.shape[-1])
    return _at_least_float32(teacher_NV[:, :common]), _at_least_float32(student_NV[:, :common])


def _log_softmaxes(
    teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float
) -> tuple[torch.Tensor, torch.Tensor]:
    teacher_NV, student_NV = _common_vocabulary(teacher_NV, student_NV, tau)
    return F.log_softmax(teacher_NV / tau, dim=-1), F.log_softmax(student_NV / tau, dim=-1)


def _softmax(logits_NV: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return p_NV = softmax(logits / tau) and -log of its normaliser, [N].

    The latter is log(max p) - max(logits) / tau, so that log p = logits / tau + it.
    """
    scaled_NV = logits_NV if tau == 1 else logits_NV / tau
    p_NV = scaled_NV.softmax(-1)
    minus_log_normaliser_N = p_NV.amax(-1).log() - logits_NV.amax(-1) / tau
    return p_NV, minus_log_normaliser_N


class _ForwardKL(torch.autograd.Function):
    """sum p (log p - log q) of softmaxes at tau; d/d student = (q - p) / tau."""

    @staticmethod
    def forward(
        ctx: Any, teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float
    ) -> torch.Tensor:
        p_NV, teacher_minus_log_normaliser_N = _softmax(teacher_NV, tau)
        q_NV, student_minus_log_normaliser_N = _softmax(student_NV, tau)
        difference_NV = (teacher_NV - student_NV).mul_(p_NV).masked_fill_(p_NV == 0, 0.0)
        difference_N = difference_NV.sum(-1) / tau
        loss_N = difference_N + teacher_minus_log_normaliser_N - student_minus_log_normaliser_N
        ctx.save_for_backward(q_NV.sub_(p_NV))
        ctx.tau = tau
        return loss_N.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        (q_minus_p_NV,) = ctx.saved_tensors
        # In place: a second backward pass is an error, not a wrong number.
        return None, q_minus_p_NV.mul_(grad / ctx.tau), None


class _LogProbabilities(torch.autograd.Function):
    """log q at K ids, q the softmax at tau; d log q_i / d z_j = ([i = j] - q_j) / tau."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float
    ) -> torch.Tensor:
        q_NV, minus_log_normaliser_N = _softmax(logits_NV, tau)
        ctx.save_for_backward(q_NV, ids_NK)
        ctx.tau = tau
        # Not the log of q_NV, in which a small probability may have become 0.
        return logits_NV.gather(1, ids_NK) / tau + minus_log_normaliser_N[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NK: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        q_NV, ids_NK = ctx.saved_tensors
        grad_NK = grad_NK / ctx.tau
        # In place, as in _ForwardKL.
        grad_NV = q_NV.mul_(-grad_NK.sum(-1, keepdim=True))
        return grad_NV.scatter_add_(1, ids_NK, grad_NK), None, None


class _LogShares(torch.autograd.Function):
    """log q at K ids, and log of the sum of q over the other ids R, q the softmax at tau.

    d log sum_R q / d z_j = ([j in R] q_j / sum_R q - q_j) / tau.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, ids_NK: torch.Tensor, tau: float
    ) -> torch.Tensor:
        q_NV, minus_log_normaliser_N = _softmax(logits_NV, tau)
        kept_NK = logits_NV.gather(1, ids_NK) / tau + minus_log_normaliser_N[:, None]
        # A tensor of zeros: the scalar 0 takes three times as long.
        tail_NV = q_NV.scatter_(1, ids_NK, torch.zeros_like(kept_NK))
        # The sum of the tail itself: 1 - the sum of the kept ids would cancel.
        smallest = torch.finfo(q_NV.dtype).tiny
        tail_N1 = tail_NV.sum(-1, keepdim=True).clamp_min(smallest)
        ctx.save_for_backward(tail_NV, ids_NK, kept_NK, tail_N1)
        ctx.tau = tau
        return torch.cat([kept_NK, tail_N1.log()], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NS: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        tail_NV, ids_NK, kept_NK, tail_N1 = ctx.saved_tensors
        grad_NS = grad_NS / ctx.tau
        total_N1 = grad_NS.sum(-1, keepdim=True)
        grad_kept_NK = torch.addcmul(grad_NS[:, :-1], kept_NK.exp(), total_N1, value=-1)
        # In place, as in _ForwardKL.
        grad_NV = tail_NV.mul_(grad_NS[:, -1:] / tail_N1 - total_N1)
        return grad_NV.scatter_(1, ids_NK, grad_kept_NK), None, None
