"""A loss of the output logits, computed for one chunk of tokens at a time.

The full [N, V] matrix of logits never exists, and nothing of size [C, V] outlives its chunk. The
forward pass computes a chunk's logits, its loss and the gradients; the backward pass only scales
them. This is the approach of Liger's fused linear cross-entropy (Hsu et al. 2024), for any loss.
Knows no labels, teachers or temperatures: those are in the function `chunk_loss`.

# N tokens, C tokens of a chunk, D width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

# (logits_CV, the chunk's slice of the N tokens) -> loss summed over the chunk's tokens
ChunkLoss = Callable[[torch.Tensor, slice], torch.Tensor]

# Tokens of a chunk. One float32 array takes 156 MB at V = 152,064, and a KD loss holds about six.
CHUNK = 256


def chunked_loss(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, chunk_loss: ChunkLoss, chunk: int = CHUNK
) -> torch.Tensor:
    """Sum a loss of logits = hidden @ head.T over chunks of tokens.

    Under autocast the product has autocast's dtype, as in a linear layer. `chunk_loss` gets it in
    at least float32, so that all terms of a loss share one copy and their gradients are added
    before they are rounded. The loss of no tokens is 0, and so are its gradients.

    Args:
        hidden_ND: Final hidden states.
        head_VD: The output matrix.
        chunk_loss: Called as chunk_loss(logits_CV, tokens), where `tokens` is the chunk's slice of
            the N tokens. Returns a scalar that is a sum over tokens. Its gradient reaches
            hidden_ND and head_VD only.
        chunk: Tokens of a chunk.

    Returns:
        A scalar in at least float32.
    """
    if torch.is_grad_enabled() and (hidden_ND.requires_grad or head_VD.requires_grad):
        return _ChunkedLoss.apply(hidden_ND, head_VD, chunk_loss, chunk)
    total = hidden_ND.new_zeros((), dtype=_accumulation_dtype(hidden_ND))
    hidden_ND = _autocast(hidden_ND)
    head_VD = _autocast(head_VD)
    for tokens in _slices(len(hidden_ND), chunk):
        total += chunk_loss(_logits(hidden_ND[tokens], head_VD), tokens)
    return total


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, head_VD: torch.Tensor, chunk_loss: ChunkLoss, chunk: int
    ) -> torch.Tensor:
        total = hidden_ND.new_zeros((), dtype=_accumulation_dtype(hidden_ND))
        hidden_needs_grad, head_needs_grad = ctx.needs_input_grad[:2]
        grad_hidden_ND = torch.empty_like(hidden_ND) if hidden_needs_grad else None
        grad_head_VD = None
        hidden = _autocast(hidden_ND)
        head = _autocast(head_VD)
        for tokens in _slices(len(hidden), chunk):
            logits_CV = _logits(hidden[tokens], head)
            loss, grad_CV = _loss_and_gradient(logits_CV, tokens, chunk_loss)
            del logits_CV
            grad_CV = grad_CV.to(head.dtype)
            total += loss
            if grad_hidden_ND is not None:
                grad_hidden_ND[tokens] = grad_CV @ head
            if head_needs_grad:
                dtype = _accumulation_dtype(head_VD)
                grad_head_VD = _add_product(grad_head_VD, grad_CV.T, hidden[tokens], dtype)
            del grad_CV  # before the next chunk's is made
        if head_needs_grad and grad_head_VD is None:  # no tokens
            grad_head_VD = torch.zeros_like(head_VD)
        if grad_head_VD is not None:
            grad_head_VD = grad_head_VD.to(head_VD.dtype)
        ctx.save_for_backward(grad_hidden_ND, grad_head_VD)
        return total

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        grad_hidden_ND, grad_head_VD = ctx.saved_tensors
        # In place: a second backward pass is an error, not a wrong number.
        if grad_hidden_ND is not None:
            grad_hidden_ND.mul_(grad)
        if grad_head_VD is not None:
            grad_head_VD.mul_(grad)
        return grad_hidden_ND, grad_head_VD, None, None


def _loss_and_gradient(
    logits_CV: torch.Tensor, tokens: slice, chunk_loss: ChunkLoss
) -> tuple[torch.Tensor, torch.Tensor]:
    """A chunk's loss, and its gradient in the chunk's logits."""
    with torch.enable_grad():
        loss = chunk_loss(logits_CV.requires_grad_(), tokens)
    (grad_CV,) = torch.autograd.grad(loss, logits_CV)
    return loss.detach(), grad_CV


def _add_product(
    sum_VD: torch.Tensor | None, grad_VC: torch.Tensor, hidden_CD: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return sum_VD + grad_VC @ hidden_CD in `dtype`, where None stands for zero.

    One fused call where the dtypes agree; else the product keeps its own dtype.
    """
    if sum_VD is None:
        return (grad_VC @ hidden_CD).to(dtype)
    if grad_VC.dtype == dtype:
        return sum_VD.addmm_(grad_VC, hidden_CD)
    return sum_VD.add_(grad_VC @ hidden_CD)


def _logits(hidden_CD: torch.Tensor, head_VD: torch.Tensor) -> torch.Tensor:
    return (hidden_CD @ head_VD.T).to(_accumulation_dtype(head_VD))


def _autocast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in autocast's dtype, where autocast is on."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def _accumulation_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _slices(tokens: int, chunk: int) -> list[slice]:
    starts = range(0, tokens, chunk)
    return [slice(start, min(start + chunk, tokens)) for start in starts]
