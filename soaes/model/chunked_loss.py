"""The output matrix and any loss of its logits, a chunk of tokens at a time: [N, V] never exists, nor does a chunk outlive its turn.

A chunk's logits, loss and gradients are made in the forward pass; the backward pass only multiplies (the way of Liger's fused
linear cross-entropy, Hsu et al. 2024, for any loss). Knows no labels, teachers or temperatures: those are in `of_chunk`.

# N tokens, C of a chunk, D width, V vocabulary"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

OfChunk = Callable[[torch.Tensor, slice], torch.Tensor]
CHUNK = (
    256  # tokens: 156 MB a float32 array at V = 152,064, of which a KD loss has some six at once
)


def chunked_loss(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, of_chunk: OfChunk, chunk: int = CHUNK
) -> torch.Tensor:
    """Sum over chunks of of_chunk(logits_CV, where), with where = the chunk's slice of the N tokens and logits = hidden @ head.T.

    of_chunk returns a scalar that is a sum over tokens; its gradient reaches hidden_ND and head_VD alone. Under autocast the
    product is in autocast's type, as a linear layer's; of_chunk has it in at least float32, so that all terms of a loss share one
    copy and their gradients are added before they are rounded. The loss of no tokens is 0, and so is its gradient."""
    if torch.is_grad_enabled() and (hidden_ND.requires_grad or head_VD.requires_grad):
        return _Chunked.apply(hidden_ND, head_VD, of_chunk, chunk)
    total = hidden_ND.new_zeros((), dtype=_exact(hidden_ND))
    hidden_ND, head_VD = _computing(hidden_ND), _computing(head_VD)
    for where in _slices(len(hidden_ND), chunk):
        total += of_chunk(_logits(hidden_ND[where], head_VD), where)
    return total


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, head_VD: torch.Tensor, of_chunk: OfChunk, chunk: int
    ) -> torch.Tensor:
        total = hidden_ND.new_zeros((), dtype=_exact(hidden_ND))
        to_hidden, to_head = ctx.needs_input_grad[:2]
        grad_ND = torch.empty_like(hidden_ND) if to_hidden else None
        grad_VD = None
        hidden, head = _computing(hidden_ND), _computing(head_VD)
        for where in _slices(len(hidden), chunk):
            value, grad_CV = _differentiated(_logits(hidden[where], head), where, of_chunk)
            grad_CV = grad_CV.to(head.dtype)
            total += value
            if to_hidden:
                grad_ND[where] = grad_CV @ head
            if to_head:
                grad_VD = _with_product(grad_VD, grad_CV.T, hidden[where], _exact(head_VD))
            del grad_CV  # before the next chunk's is made
        if to_head:
            grad_VD = torch.zeros_like(head_VD) if grad_VD is None else grad_VD.to(head_VD.dtype)
        ctx.save_for_backward(grad_ND, grad_VD)
        return total

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        # in place: a second backward through it is an error, not a wrong number
        grad_ND, grad_VD = (None if each is None else each.mul_(grad) for each in ctx.saved_tensors)
        return grad_ND, grad_VD, None, None


def _differentiated(
    logits_CV: torch.Tensor, where: slice, of_chunk: OfChunk
) -> tuple[torch.Tensor, torch.Tensor]:
    """A chunk's loss, and its gradient in the chunk's logits."""
    with torch.enable_grad():
        value = of_chunk(logits_CV.requires_grad_(), where)
    return value.detach(), torch.autograd.grad(value, logits_CV)[0]


def _with_product(
    sum_VD: torch.Tensor | None, grad_VC: torch.Tensor, hidden_CD: torch.Tensor, exact: torch.dtype
) -> torch.Tensor:
    """sum_VD + grad_VC @ hidden_CD, None being zero: in one go where the types agree, else the product in its type and the sum in its own."""
    if sum_VD is None:
        return (grad_VC @ hidden_CD).to(exact)
    return (
        sum_VD.addmm_(grad_VC, hidden_CD)
        if grad_VC.dtype == exact
        else sum_VD.add_(grad_VC @ hidden_CD)
    )


def _logits(hidden_CD: torch.Tensor, head_VD: torch.Tensor) -> torch.Tensor:
    return (hidden_CD @ head_VD.T).to(_exact(head_VD))


def _computing(tensor: torch.Tensor) -> torch.Tensor:
    device = tensor.device.type
    return (
        tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor
    )


def _exact(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _slices(tokens: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk)]
