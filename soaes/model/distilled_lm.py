"""The Lightning module of distillation: CausalLM with Eq. 2 as its loss.

The teacher's side of the loss comes from a teacher store, not from a teacher.

# N loss tokens of a batch, C of a chunk, D width of the teacher, V vocabulary
"""

from __future__ import annotations

from typing import Any

import torch

from soaes.data.teacher_store import TeacherStore
from soaes.model import losses
from soaes.model.causal_lm import CausalLM
from soaes.pipeline.validation import check_alpha, check_tau


class DistilledLM(CausalLM):
    """Distillation from a teacher store.

    Args:
        teacher_store: The teacher's soft targets over the rows that the student trains on.
        alpha: KD weight of Eq. 2, in [0, 1].
        tau: Temperature of Eq. 1, positive.
        divergence: `forward` (Eq. 1), `reverse` or `total_variation`.
        tau_squared: Multiply the divergence by tau**2 (Hinton et al. 2015); the paper does not.
        causal_lm: Arguments of CausalLM.

    Raises:
        ValueError: alpha or tau is out of range, or the store does not support tau, the divergence
            or the student's vocabulary.
    """

    def __init__(
        self,
        *,
        teacher_store: TeacherStore,
        alpha: float,
        tau: float,
        divergence: str = "forward",
        tau_squared: bool = False,
        **causal_lm: Any,
    ) -> None:
        super().__init__(**causal_lm)
        check_alpha(alpha)
        check_tau(tau)
        teacher_store.check_supports(tau, divergence, self.model.config.vocab_size)
        self.alpha = alpha
        self.tau = tau
        self.divergence = divergence
        self.tau_squared = tau_squared
        self.soft_targets = teacher_store.soft_targets
        self.fidelity = teacher_store.fidelity_at(tau)
        # Not a buffer: Lightning casts buffers to the weights' precision, and a store is exact.
        self.teacher_head_VD = teacher_store.head_VD

    def loss_sum(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return Eq. 2 summed over the batch's loss tokens, in nats."""
        hidden_ND, labels_N = self.loss_positions(batch)
        stored_N = dict(batch["soft_targets"])
        if self.teacher_head_VD is not None:
            self.teacher_head_VD = self.teacher_head_VD.to(hidden_ND.device)

        def chunk_loss(student_CV: torch.Tensor, tokens: slice) -> torch.Tensor:
            """Eq. 2 of one chunk of tokens."""
            stored_C = {name: field[tokens] for name, field in stored_N.items()}
            kl_loss = None
            if self.alpha > 0:
                kl_loss = self.kl_loss(stored_C, student_CV)
            return losses.distillation_loss(
                kl_loss, student_CV, labels_N[tokens], self.alpha, self.tau, self.tau_squared
            )

        return self.loss_over_chunks(hidden_ND, chunk_loss)

    def kl_loss(self, stored_C: dict[str, torch.Tensor], student_CV: torch.Tensor) -> torch.Tensor:
        """Return Eq. 1 (`losses.kl_loss`), or another divergence, as far as the store has it."""
        return self.soft_targets.divergence(
            stored_C, self.teacher_head_VD, student_CV, self.tau, self.divergence
        )

    @property
    def metrics(self) -> dict[str, float | None]:
        """Extra entries for metrics.json: how exact the soft targets are at tau.

        They were measured when the store was written (`fidelity.measure_fidelity`): teacher_entropy
        in nats per token, soft_targets_bytes per token, soft_targets_kl, soft_targets_gradient_bias
        and soft_targets_gradient_variance. Empty for a temperature at which nothing was measured.
        """
        names = {
            "entropy": "teacher_entropy",
            "bytes": "soft_targets_bytes",
            "kl": "soft_targets_kl",
            "gradient_bias": "soft_targets_gradient_bias",
            "gradient_variance": "soft_targets_gradient_variance",
        }
        return {name: self.fidelity[key] for key, name in names.items() if key in self.fidelity}
