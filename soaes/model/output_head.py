"""What a causal LM computes behind its final hidden states: a product, and in some families more.

    logits = cap * tanh(scale * (hidden @ weight.T + bias) / cap)

Gemma-2 has a soft cap, Cohere and Granite have a scale, Phi has a bias; of Qwen2, Llama, Mistral
and most others the product is all. What a model computes beyond this formula is not known here:
`soaes.model.self_check` compares the formula with the model's own logits before it is relied on.

# N tokens, D width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F


class LossHead(torch.nn.Linear):
    """An output matrix that can be called for a loss of its logits instead of the logits.

    Only while a module is called do FSDP2 and ZeRO-3 hold its whole weight, and from that call
    they take its gradient. A loss that reads the matrix is therefore computed inside the call.
    """

    def forward(
        self,
        hidden_ND: torch.Tensor,
        loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the product with the hidden states, or `loss` of them."""
        if loss is None:
            return super().forward(hidden_ND)
        return loss(hidden_ND)


def compute_losses_in_head(model: Any) -> None:
    """Make the output matrix of a Hugging Face causal LM a LossHead; its weights stay."""
    linear = model.get_output_embeddings()
    if type(linear) is torch.nn.Linear:
        linear.__class__ = LossHead


@dataclass(frozen=True)
class OutputHead:
    """The last step of a model's forward pass."""

    weight_VD: torch.Tensor
    """The output matrix."""

    bias_V: torch.Tensor | None = None
    """Added to the product."""

    scale: float = 1.0
    """The factor on the product."""

    soft_cap: float | None = None
    """The bound of the logits' absolute values, approached by tanh."""

    @classmethod
    def of(cls, model: Any) -> OutputHead:
        """Return the head of a Hugging Face causal LM; its tensors are the model's own.

        Raises:
            ValueError: The model has no output matrix.
        """
        linear = model.get_output_embeddings()
        if getattr(linear, "weight", None) is None:
            raise ValueError(
                f"a {model.config.model_type} model has no output matrix; use a causal LM"
            )
        config = model.config.get_text_config()
        multiplier = getattr(config, "logit_scale", None) or 1.0  # Cohere
        divisor = getattr(config, "logits_scaling", None) or 1.0  # Granite
        return cls(
            linear.weight,
            getattr(linear, "bias", None),
            multiplier / divisor,
            getattr(config, "final_logit_softcapping", None),  # Gemma
        )

    @property
    def extras(self) -> list[str]:
        """What the head does beside the product, in words; nothing where logits are a product."""
        extras = []
        if self.bias_V is not None:
            extras.append("a bias")
        if self.scale != 1:
            extras.append(f"a scale of {self.scale:g}")
        if self.soft_cap is not None:
            extras.append(f"a soft cap of {self.soft_cap:g}")
        return extras

    def matrix_inputs(self, hidden_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states and a matrix whose product is hidden @ weight.T + bias.

        A bias is one more column of the matrix, of which every state has one.
        """
        if self.bias_V is None:
            return hidden_ND, self.weight_VD
        ones_N1 = hidden_ND.new_ones(len(hidden_ND), 1)
        states = torch.cat([hidden_ND, ones_N1], dim=1)
        return states, torch.cat([self.weight_VD, self.bias_V[:, None]], dim=1)

    def finish(self, product_NV: torch.Tensor) -> torch.Tensor:
        """Return the logits of a product that has its bias: scale and soft cap are applied."""
        if self.scale != 1:
            product_NV = product_NV * self.scale
        if self.soft_cap is not None:
            product_NV = self.soft_cap * torch.tanh(product_NV / self.soft_cap)
        return product_NV

    def logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Return the logits of final hidden states, in the dtype of the product."""
        return self.finish(F.linear(hidden_ND, self.weight_VD, self.bias_V))

    def detached(self) -> OutputHead:
        """Return the head without gradients."""
        bias_V = None if self.bias_V is None else self.bias_V.detach()
        return OutputHead(self.weight_VD.detach(), bias_V, self.scale, self.soft_cap)

    def to(self, device: str) -> OutputHead:
        """Return the head on another device."""
        bias_V = None if self.bias_V is None else self.bias_V.to(device)
        return OutputHead(self.weight_VD.to(device), bias_V, self.scale, self.soft_cap)
