"""Cross-entropy and the distillation loss as pure functions of logits: Eq. 1 and 2 of the paper.

# N tokens that bear loss, V vocabulary. Both losses are sums; the caller divides by the tokens of the whole step, so that a
# step has one loss whatever its micro-batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from soaes import limits


def cross_entropy(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Sum over N tokens of -log softmax(logits)[label], in nats. L_SFT is its mean."""
    return F.cross_entropy(logits_NV.float(), labels_N, reduction="sum")


def kl(teacher_NV: torch.Tensor, student_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Eq. 1: sum over N tokens of KL(teacher || student) at temperature tau, in nats.

    The paper has no tau**2 factor, so there is none here. Vocabularies padded to different sizes are compared on the common ids."""
    limits.check(tau=tau)
    common = min(teacher_NV.shape[-1], student_NV.shape[-1])
    teacher = F.log_softmax(teacher_NV[:, :common].float() / tau, dim=-1)
    student = F.log_softmax(student_NV[:, :common].float() / tau, dim=-1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True)


def entropy(logits_NV: torch.Tensor, tau: float) -> torch.Tensor:
    """Sum over N tokens of the entropy of softmax(logits / tau), in nats: how much a temperature leaves of what a teacher knows."""
    limits.check(tau=tau)
    logs = F.log_softmax(logits_NV.float() / tau, dim=-1)
    return -(logs.exp() * logs).sum()


def distillation(teacher_NV: torch.Tensor, student_NV: torch.Tensor, labels_N: torch.Tensor, alpha: float, tau: float) -> torch.Tensor:
    """Eq. 2: alpha * L_KL + (1 - alpha) * L_SFT, summed over N tokens. alpha = 0 is plain SFT, to the bit."""
    limits.check(alpha=alpha)
    if alpha == 0:
        return cross_entropy(student_NV, labels_N)
    loss = alpha * kl(teacher_NV, student_NV, tau)
    return loss if alpha == 1 else loss + (1 - alpha) * cross_entropy(student_NV, labels_N)
