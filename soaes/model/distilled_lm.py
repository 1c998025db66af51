"""The Lightning module of distillation: CausalLM whose loss is Eq. 2, with the teacher's logits from its stored hidden states."""

from __future__ import annotations

from typing import Any

import torch

from soaes import limits
from soaes.model import losses
from soaes.model.causal_lm import CausalLM

LOOKED_AT = 64  # micro-batches, the first of a random order, over which the teacher's entropy is taken


class DistilledLM(CausalLM):
    """head_VD: the teacher's output matrix. alpha: KD weight in [0, 1]. tau: temperature of Eq. 1, positive."""

    def __init__(self, *, head_VD: torch.Tensor, alpha: float, tau: float, **causal_lm: Any) -> None:
        super().__init__(**causal_lm)
        limits.check(alpha=alpha, tau=tau)
        self.alpha, self.tau = alpha, tau
        self.register_buffer("head_VD", head_VD, persistent=False)
        self.looked_at, self.teacher_nats, self.teacher_tokens = 0, 0.0, 0

    def loss_sum(self, batch: dict[str, Any]) -> torch.Tensor:
        hidden_ND, labels_N, where_BT = self.predicting(batch)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):  # the store is exact; so is what is made of it
            teacher_NV = batch["hidden_BTD"][where_BT].float() @ self.head_VD.float().T
        if self.looked_at < LOOKED_AT:
            self.looked_at, self.teacher_tokens = self.looked_at + 1, self.teacher_tokens + len(labels_N)
            self.teacher_nats += losses.entropy(teacher_NV, self.tau).item()
        return losses.distillation(teacher_NV, self.model.lm_head(hidden_ND), labels_N, self.alpha, self.tau)

    @property
    def metrics(self) -> dict[str, float]:
        """teacher_entropy: mean over loss tokens, at tau, in nats."""
        return {"teacher_entropy": self.teacher_nats / max(1, self.teacher_tokens)}
