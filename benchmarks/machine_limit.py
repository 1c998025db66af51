"""What the machine allows a step of batch 1: how fast one thread reads the bytes of the weights.

A step reads every weight once, so no step is quicker than that reading, whether the bytes lie in a
cache or in memory. And models of any shape to measure on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends.native import NativePair
from soaes.decode.engine import Engine
from soaes.decode.speculative import Speculative

FAR = 1 << 28  # bytes that no cache of today's desktops and servers holds for one core
TURNS = 5  # of each way to read; the quickest counts: other work only ever slows one
NEARER = 1.2  # a rate this much above memory's comes out of a cache


def weight_bytes(engine: Engine) -> int:
    """Return the bytes of the matrices that one step reads; of the embedding it reads one row."""
    return sum(matrix.plain.numel() * matrix.plain.element_size() for matrix in engine.matrices)


def read_rate(size: int) -> float:
    """Measure how fast a buffer is read again and again, by the quickest of three ways of torch.

    Args:
        size: Bytes of the buffer of float32.

    Returns:
        Bytes a second.
    """
    numbers = torch.ones(size // 4096, 1024)
    ones, flat = torch.ones(1024), numbers.view(-1)
    ways = (flat.sum, lambda: torch.dot(flat, flat), lambda: torch.mv(numbers, ones))
    repeats = max(1, (FAR >> 3) // size)
    read = numbers.numel() * 4 * repeats
    return max(read / _seconds(way, repeats) for way in ways * TURNS)


def _seconds(way: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        way()
    return time.perf_counter() - start


def lies_in(near: float, far: float) -> str:
    """Say where the weights are read from: `cache` or `memory`.

    Args:
        near: The rate at their size.
        far: The rate of memory.
    """
    return "cache" if near > NEARER * far else "memory"


def random_pair(
    target: tuple[int, int],
    draft: tuple[int, int],
    vocabulary: int,
    n: int,
    eos: int,
    positions: int,
) -> NativePair:
    """Make a greedy decoder over untrained models: a step's cost depends on shapes alone.

    Args:
        target: (layers, width) of the target.
        draft: (layers, width) of the draft.
        vocabulary: Rows of the output layer of both.
        n: Drafted tokens in a block.
        eos: Id of the token that ends a text.
        positions: Positions of both.
    """
    torch.manual_seed(0)
    engines = [
        Engine(_model(layers, width, vocabulary, positions)) for layers, width in (target, draft)
    ]
    method = Speculative(*engines, n, temperature=0.0, top_p=1.0, eos=eos)
    baseline = Autoregressive(engines[0], temperature=0.0, top_p=1.0, eos=eos)
    return NativePair(method, baseline, n, positions)


def _model(layers: int, width: int, vocabulary: int, positions: int) -> Qwen2ForCausalLM:
    """A model as those of scale=tiny.

    Heads of 32 units, three query heads to a key head where that divides, a feed-forward of three
    widths.
    """
    heads = width // 32
    config = Qwen2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 3 if heads % 3 == 0 else heads // 4,
        intermediate_size=3 * width,
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return Qwen2ForCausalLM(config).eval()
