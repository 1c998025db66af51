"""Causal attention inside each document of packed rows: transformers knows it as `documents`.

It pays for the sum of squared document lengths, where a kernel with a mask pays for rows * T**2. Knows positions, not tokens: a
document ends where the next position is not one more. For whole rows alone: no cache, no dropout, no sliding window.

# B rows of T tokens, N in all; Q query heads, K key heads, R = Q / K, head size D. Tokens are gathered into groups of G documents of
# about one length L, P places in all. A document shorter than L is filled up behind its end, where none of its tokens looks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface

from soaes.pipeline import private_api

WASTE, SLACK = (
    1.3,
    3,
)  # the longest document of a group has at most WASTE times the tokens of the shortest, plus SLACK
QUERIES = 64  # at once: the first queries of a long document are not compared with its last keys


class Layout(NamedTuple):
    """token_P: the token in a place (where it fills up, the document's first). place_N: the place of a token. groups: their (G, L), in order."""

    token_P: torch.Tensor
    place_N: torch.Tensor
    groups: list[tuple[int, int]]


@lru_cache(maxsize=1)  # every layer of a batch brings the same tensor
def layout(positions_BT: torch.Tensor) -> Layout:
    """Documents of nearly one length together."""
    begins_BT = (
        torch.diff(positions_BT, prepend=positions_BT[:, :1]) != 1
    )  # positions [0 1 2 0 1]: documents of 3 and of 2 tokens
    starts = begins_BT.flatten().nonzero().flatten()
    lengths, order = torch.diff(starts, append=starts.new_tensor([positions_BT.numel()])).sort(
        stable=True
    )
    groups, tokens, real = [], [], []
    for low, high in _cuts(lengths.tolist()):
        offsets = torch.arange(int(lengths[high - 1]), device=starts.device)
        real_GL = offsets < lengths[low:high, None]
        tokens.append((starts[order[low:high], None] + offsets * real_GL).flatten())
        real.append(real_GL.flatten())
        groups.append((high - low, len(offsets)))
    token_P, places = torch.cat(tokens), torch.cat(real).nonzero().flatten()
    return Layout(token_P, torch.empty_like(places).index_copy_(0, token_P[places], places), groups)


def _cuts(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Ascending lengths cut into groups [low, high), from the longest down."""
    low = len(lengths)
    while low:
        high, longest = low, lengths[low - 1]
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
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """[B, T, Q, D], called by transformers. ValueError for a model or a call that needs another attention."""
    if dropout or sliding_window or query_BQTD.shape[2] != key_BKTD.shape[2]:
        raise ValueError(
            f"attention=documents knows no dropout ({dropout}), sliding window ({sliding_window}) or cache; "
            "set runtime.execution.attention=sdpa"
        )
    batch, device = len(query_BQTD), query_BQTD.device.type
    dtype = (
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value_BKTD.dtype
    )
    by_token = (
        states.transpose(1, 2).flatten(0, 1).to(dtype)
        for states in (query_BQTD * scaling, key_BKTD, value_BKTD)
    )
    where = layout(position_ids if len(position_ids) == batch else position_ids.expand(batch, -1))
    return _Documents.apply(*by_token, where).unflatten(0, (batch, -1)), None


AttentionInterface.register("documents", documents)


def set_attention(model: Any, name: str) -> None:
    """name: `documents`, or one of transformers'."""
    model.set_attn_implementation(name)


@contextmanager
def using_attention(model: Any, name: str) -> Iterator[None]:
    """The same for a while."""
    before = private_api.attention_implementation(model)
    set_attention(model, name)
    try:
        yield
    finally:
        set_attention(model, before)


class _Documents(torch.autograd.Function):
    """Its backward is written out: autograd would add up what it gathered, and keep scores beside their softmax."""

    @staticmethod
    def forward(
        ctx: Any, q_NQD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor, where: Layout
    ) -> torch.Tensor:
        q, k, v = (states.index_select(0, where.token_P) for states in (q_NQD, k_NKD, v_NKD))
        out, kept = torch.empty_like(q), []
        for q_, k_, v_, out_ in zip(
            *(_groups(states, where.groups, k.shape[1]) for states in (q, k, v, out))
        ):
            for start, stop in _steps(q_.shape[3]):
                scores = torch.bmm(
                    _fold(q_, start, stop), _fold(k_, 0, stop).mT
                ).float()  # softmax of bfloat16 is slow, and loses more
                scores.unflatten(1, (-1, stop - start))[..., start:].add_(
                    _later(stop - start, scores.device)
                )
                kept.append(torch.softmax(scores, -1).to(q.dtype))
                out_[..., start:stop, :] = torch.bmm(kept[-1], _fold(v_, 0, stop)).view_as(
                    out_[..., start:stop, :]
                )
        ctx.save_for_backward(q, k, v, *kept)
        ctx.where = where
        return out.index_select(0, where.place_N)

    @staticmethod
    def backward(ctx: Any, grad_NQD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        grad = torch.zeros_like(q).index_copy_(0, ctx.where.place_N, grad_NQD)
        grads, softmaxes = [torch.zeros_like(states) for states in (q, k, v)], iter(kept)
        for q_, k_, v_, grad_, to_q, to_k, to_v in zip(
            *(_groups(states, ctx.where.groups, k.shape[1]) for states in (q, k, v, grad, *grads))
        ):
            for start, stop in _steps(q_.shape[3]):
                weights, given = next(softmaxes), _fold(grad_, start, stop)
                scores = private_api.softmax_backward(
                    torch.bmm(given, _fold(v_, 0, stop).mT), weights
                )
                to_q[..., start:stop, :] = torch.bmm(scores, _fold(k_, 0, stop)).view_as(
                    to_q[..., start:stop, :]
                )
                to_k[..., :stop, :].add_(
                    torch.bmm(scores.mT, _fold(q_, start, stop)).view_as(to_k[..., :stop, :])
                )
                to_v[..., :stop, :].add_(torch.bmm(weights.mT, given).view_as(to_v[..., :stop, :]))
        return *(states.index_select(0, ctx.where.place_N) for states in grads), None


def _groups(
    states_PXD: torch.Tensor, groups: list[tuple[int, int]], keys: int
) -> list[torch.Tensor]:
    """A view [G, K, R, L, D] of each group; R is 1 for keys and values."""
    parts = states_PXD.split([count * length for count, length in groups])
    return [
        part.view(*group, keys, -1, part.shape[-1]).permute(0, 2, 3, 1, 4)
        for part, group in zip(parts, groups)
    ]


def _fold(states_GKRLD: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """[G * K, R * (stop - start), D]: the R queries of a key head are one matrix."""
    return states_GKRLD[..., start:stop, :].flatten(2, 3).flatten(0, 1)


def _steps(length: int) -> list[tuple[int, int]]:
    """[start, stop) of the queries taken at once."""
    return [(start, min(length, start + QUERIES)) for start in range(0, length, QUERIES)]


@lru_cache
def _later(length: int, device: torch.device) -> torch.Tensor:
    """What keeps a query from the keys behind it."""
    return torch.full((length, length), -math.inf, device=device).triu(1)
