"""Causal attention inside each document of packed rows, registered in transformers as `documents`.

Its cost is the sum of squared document lengths; a kernel with a block-diagonal mask costs
rows * T**2. It knows positions, not tokens: a document ends where the next position is not one
more. It supports whole rows only: no cache, no dropout, no sliding window.

Tokens are gathered into groups of documents of nearly one length, each group a dense batch.
Documents shorter than the group's longest are padded at their end, where causality keeps every real
token from attending.

# B rows of T tokens, N = B * T tokens in all
# Q query heads, K key heads, R = Q / K query heads of a key head, D head size
# G documents of a group, L its padded length, P = sum of G * L slots over all groups
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface

from soaes.pipeline import private_api

# The longest document of a group has at most WASTE times the tokens of its shortest, plus SLACK.
WASTE = 1.3
SLACK = 3
# Attentions that know documents in a single row alone: given several, they are causal over each.
ONE_ROW = ("flash_attention_2", "flash_attention_3")
# Queries of a step: the first queries of a long document are not compared with its last keys.
QUERIES = 64


class Layout(NamedTuple):
    """Where each token of a batch lies among the slots of the groups.

    Attributes:
        token_P: The token in each slot; in padding, the first token of the slot's document.
        slot_N: The slot of each token.
        groups: (G, L) of each group, in order.
    """

    token_P: torch.Tensor
    slot_N: torch.Tensor
    groups: list[tuple[int, int]]


@lru_cache(maxsize=1)  # every layer of a forward pass brings the same tensor
def layout(positions_BT: torch.Tensor) -> Layout:
    """Group the documents of a batch by length.

    # positions [0 1 2 0 1]: documents of 3 and of 2 tokens
    """
    is_first_BT = torch.diff(positions_BT, prepend=positions_BT[:, :1]) != 1
    starts = is_first_BT.flatten().nonzero().flatten()
    end = starts.new_tensor([positions_BT.numel()])
    lengths, order = torch.diff(starts, append=end).sort(stable=True)
    groups: list[tuple[int, int]] = []
    tokens: list[torch.Tensor] = []
    real: list[torch.Tensor] = []
    for low, high in _group_bounds(lengths.tolist()):
        longest = int(lengths[high - 1])
        offsets_L = torch.arange(longest, device=starts.device)
        is_real_GL = offsets_L < lengths[low:high, None]
        starts_G1 = starts[order[low:high], None]
        tokens.append((starts_G1 + offsets_L * is_real_GL).flatten())
        real.append(is_real_GL.flatten())
        groups.append((high - low, longest))
    token_P = torch.cat(tokens)
    slots = torch.cat(real).nonzero().flatten()
    slot_N = torch.empty_like(slots).index_copy_(0, token_P[slots], slots)
    return Layout(token_P, slot_N, groups)


def _group_bounds(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Cut ascending lengths into groups [low, high), from the longest down."""
    low = len(lengths)
    while low:
        high = low
        longest = lengths[high - 1]
        while low and lengths[low - 1] * WASTE + SLACK >= longest:
            low -= 1
        yield low, high


def documents(
    module: Any,
    query_BQTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    position_ids: torch.Tensor,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Compute causal attention inside documents; transformers calls it for every layer.

    Args:
        module: The layer; unused.
        query_BQTD: Queries, after rotary embedding.
        key_BKTD: Keys, after rotary embedding.
        value_BKTD: Values.
        attention_mask: Unused; transformers makes none for an attention registered here.
        scaling: Factor on the scores.
        position_ids: [B, T] or [1, T]; they restart at 0 in each document.
        dropout: Must be 0.
        sliding_window: Must be None.
        softcap: Of the scores (Gemma-2); must be None.
        s_aux: Attention sinks; must be None.
        others: Further arguments of transformers; unused.

    Returns:
        The heads' outputs [B, T, Q, D], and None in place of the attention weights.

    Raises:
        ValueError: The model or the call needs dropout, a sliding window, a soft cap, sinks or a
            cache.
    """
    if softcap is not None or s_aux is not None:
        raise ValueError(
            f"attention=documents supports no soft cap on scores ({softcap}) and no sinks, which "
            "this model has; set runtime.execution.attention=eager"
        )
    has_cache = query_BQTD.shape[2] != key_BKTD.shape[2]
    if dropout or sliding_window or has_cache:
        raise ValueError(
            f"attention=documents supports no dropout ({dropout}), sliding window "
            f"({sliding_window}) or cache; set runtime.execution.attention=sdpa"
        )
    batch = len(query_BQTD)
    dtype = value_BKTD.dtype
    if torch.is_autocast_enabled(query_BQTD.device.type):
        dtype = torch.get_autocast_dtype(query_BQTD.device.type)
    q_NQD = _tokens_first(query_BQTD * scaling, dtype)
    k_NKD = _tokens_first(key_BKTD, dtype)
    v_NKD = _tokens_first(value_BKTD, dtype)
    if len(position_ids) != batch:
        position_ids = position_ids.expand(batch, -1)
    out_NQD = _DocumentAttention.apply(q_NQD, k_NKD, v_NKD, layout(position_ids))
    return out_NQD.unflatten(0, (batch, -1)), None


AttentionInterface.register("documents", documents)


def final_hidden(model: Any, ids_BT: torch.Tensor, positions_BT: torch.Tensor) -> torch.Tensor:
    """Run a model's body over packed rows; no document sees another.

    transformers derives a block-diagonal mask from positions that restart, as long as there is no
    attention mask and no cache. Its flash attention does so in a single row alone, so that several
    rows are given to it as one; each begins with a document.

    Args:
        model: A Hugging Face causal LM.
        ids_BT: Token ids.
        positions_BT: Positions that restart at 0 in each document.

    Returns:
        The final hidden states hidden_BTD.
    """
    shape = ids_BT.shape
    if current(model) in ONE_ROW:
        ids_BT = ids_BT.reshape(1, -1)
        positions_BT = positions_BT.reshape(1, -1)
    outputs = model.base_model(input_ids=ids_BT, position_ids=positions_BT, use_cache=False)
    hidden_BTD: torch.Tensor = outputs.last_hidden_state
    return hidden_BTD.view(*shape, -1)


def name_with_cache(model: Any) -> str:
    """Return the attention that a model decodes with: sdpa, or eager where only that is exact.

    `documents` supports no cache. sdpa knows no soft cap on scores (Gemma-2), and leaves it out
    without a word.
    """
    has_cap = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return "eager" if has_cap else "sdpa"


def set_attention(model: Any, name: str) -> None:
    """Set a model's attention: `documents`, or the name of one in transformers."""
    model.set_attn_implementation(name)


def current(model: Any) -> str:
    """Return the name of a model's attention."""
    return private_api.attention_implementation(model)


@contextmanager
def using_attention(model: Any, name: str) -> Iterator[None]:
    """Set a model's attention, and restore the previous one at the end."""
    before = current(model)
    set_attention(model, name)
    try:
        yield
    finally:
        set_attention(model, before)


class _DocumentAttention(torch.autograd.Function):
    """The backward pass is handwritten.

    Autograd would sum gradients over gathered copies, and keep the scores beside their softmax.
    """

    @staticmethod
    def forward(
        ctx: Any, q_NQD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor, slots: Layout
    ) -> torch.Tensor:
        q_PQD = q_NQD.index_select(0, slots.token_P)
        k_PKD = k_NKD.index_select(0, slots.token_P)
        v_PKD = v_NKD.index_select(0, slots.token_P)
        key_heads, value_size = v_PKD.shape[1:]
        out_PQD = q_PQD.new_empty(*q_PQD.shape[:2], value_size)
        q_groups, k_groups, v_groups, out_groups = (
            _group_views(states, slots.groups, key_heads)
            for states in (q_PQD, k_PKD, v_PKD, out_PQD)
        )
        saved_weights = []
        for q, k, v, out in zip(q_groups, k_groups, v_groups, out_groups):
            for start, stop in _query_steps(q.shape[3]):
                queries = _fold(q, start, stop)
                keys = _fold(k, 0, stop)
                # Scores in float32: a softmax in bfloat16 is slower, and less exact.
                scores = torch.bmm(queries, keys.mT).float()
                diagonal = scores.unflatten(1, (-1, stop - start))[..., start:stop]
                diagonal.add_(_causal_mask(stop - start, scores.device))
                weights = torch.softmax(scores, -1).to(q_PQD.dtype)
                saved_weights.append(weights)
                step_out = out[..., start:stop, :]
                step_out[...] = torch.bmm(weights, _fold(v, 0, stop)).view_as(step_out)
        ctx.save_for_backward(q_PQD, k_PKD, v_PKD, *saved_weights)
        ctx.slots = slots
        return out_PQD.index_select(0, slots.slot_N)

    @staticmethod
    def backward(ctx: Any, grad_NQD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q_PQD, k_PKD, v_PKD, *saved_weights = ctx.saved_tensors
        slots = ctx.slots
        out_shape = (*q_PQD.shape[:2], v_PKD.shape[2])
        grad_out_PQD = q_PQD.new_zeros(out_shape).index_copy_(0, slots.slot_N, grad_NQD)
        grad_q_PQD = torch.zeros_like(q_PQD)
        grad_k_PKD = torch.zeros_like(k_PKD)
        grad_v_PKD = torch.zeros_like(v_PKD)
        key_heads = k_PKD.shape[1]
        states = (q_PQD, k_PKD, v_PKD, grad_out_PQD, grad_q_PQD, grad_k_PKD, grad_v_PKD)
        views = [_group_views(tensor, slots.groups, key_heads) for tensor in states]
        next_weights = iter(saved_weights)
        for q, k, v, grad_out, grad_q, grad_k, grad_v in zip(*views):
            for start, stop in _query_steps(q.shape[3]):
                weights = next(next_weights)
                grad_step = _fold(grad_out, start, stop)
                grad_weights = torch.bmm(grad_step, _fold(v, 0, stop).mT)
                grad_scores = private_api.softmax_backward(grad_weights, weights)
                step_q = grad_q[..., start:stop, :]
                step_k = grad_k[..., :stop, :]
                step_v = grad_v[..., :stop, :]
                step_q[...] = torch.bmm(grad_scores, _fold(k, 0, stop)).view_as(step_q)
                step_k.add_(torch.bmm(grad_scores.mT, _fold(q, start, stop)).view_as(step_k))
                step_v.add_(torch.bmm(weights.mT, grad_step).view_as(step_v))
        grad_q_NQD = grad_q_PQD.index_select(0, slots.slot_N)
        grad_k_NKD = grad_k_PKD.index_select(0, slots.slot_N)
        grad_v_NKD = grad_v_PKD.index_select(0, slots.slot_N)
        return grad_q_NQD, grad_k_NKD, grad_v_NKD, None


def _tokens_first(states_BHTD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[N, heads, D] in `dtype`."""
    return states_BHTD.transpose(1, 2).flatten(0, 1).to(dtype)


def _group_views(
    states_PHD: torch.Tensor, groups: list[tuple[int, int]], key_heads: int
) -> list[torch.Tensor]:
    """A view [G, K, R, L, D] of each group, where R is 1 for keys and values."""
    head_size = states_PHD.shape[-1]
    parts = states_PHD.split([count * length for count, length in groups])
    views = []
    for part, (count, length) in zip(parts, groups):
        view_GLKRD = part.view(count, length, key_heads, -1, head_size)
        views.append(view_GLKRD.permute(0, 2, 3, 1, 4))
    return views


def _fold(states_GKRLD: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """[G * K, R * (stop - start), D]: the R query heads of a key head form one matrix."""
    return states_GKRLD[..., start:stop, :].flatten(2, 3).flatten(0, 1)


def _query_steps(length: int) -> list[tuple[int, int]]:
    """[start, stop) of the queries that are computed at once."""
    return [(start, min(length, start + QUERIES)) for start in range(0, length, QUERIES)]


@lru_cache
def _causal_mask(length: int, device: torch.device) -> torch.Tensor:
    """-inf above the diagonal: no query attends to a later key."""
    return torch.full((length, length), -math.inf, device=device).triu(1)
