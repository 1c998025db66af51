"""The Lightning module of distillation: CausalLM whose loss is Eq. 2, with what a teacher store kept of the teacher's distributions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from soaes.model import losses
from soaes.model.causal_lm import CausalLM
from soaes.pipeline import validation


class DistilledLM(CausalLM):
    """teacher_store: the teacher's store. alpha: KD weight in [0, 1]. tau: temperature of Eq. 1, positive. divergence: forward (Eq. 1), reverse or
    total_variation, which is what acceptance rewards. tau_squared: weigh it by tau**2, as Hinton et al. (2015) and not the paper."""

    def __init__(
        self,
        *,
        teacher_store: Any,
        alpha: float,
        tau: float,
        divergence: str = "forward",
        tau_squared: bool = False,
        **causal_lm: Any,
    ) -> None:
        super().__init__(**causal_lm)
        validation.check(alpha=alpha, tau=tau)
        teacher_store.check_supports(tau, divergence, self.model.config.vocab_size)
        self.soft_targets, self.fidelity = (
            teacher_store.soft_targets,
            teacher_store.fidelity_at(tau),
        )
        self.alpha, self.tau, self.divergence, self.tau_squared = (
            alpha,
            tau,
            divergence,
            tau_squared,
        )
        self.head_VD = (
            teacher_store.head_VD
        )  # no buffer: Lightning casts those to the precision of weights, and a store is exact

    def loss_sum(self, batch: dict[str, Any]) -> torch.Tensor:
        hidden_ND, labels_N = self.predicting(batch)
        fields_N = dict(batch["soft_targets"])
        if self.head_VD is not None:
            self.head_VD = self.head_VD.to(hidden_ND.device)
        return self.of_logits(
            hidden_ND, lambda logits_CV, where: self._of_chunk(fields_N, logits_CV, labels_N, where)
        )

    def _of_chunk(
        self,
        fields_N: dict[str, torch.Tensor],
        logits_CV: torch.Tensor,
        labels_N: torch.Tensor,
        where: slice,
    ) -> torch.Tensor:
        said = {name: field[where] for name, field in fields_N.items()}
        far = partial(
            self.soft_targets.divergence, said, self.head_VD, tau=self.tau, kind=self.divergence
        )
        return losses.distillation(
            far, logits_CV, labels_N[where], self.alpha, self.tau, self.tau_squared
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Of the signal at tau, as it was tried when the store was written: teacher_entropy in nats a token, signal_bytes a token, signal_kl,
        signal_gradient_bias and signal_gradient_variance (signals.fidelity). None of a temperature that it was not tried at."""
        named = {"entropy": "teacher_entropy"} | {
            name: f"signal_{name}" for name in ("bytes", "kl", "gradient_bias", "gradient_variance")
        }
        return {as_: self.fidelity[name] for name, as_ in named.items() if name in self.fidelity}
