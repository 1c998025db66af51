"""What the machine allows a step of batch 1, measured: how fast one thread reads as many bytes as the weights have. And models of any shape.

A step reads every weight once, so no step is quicker than that reading, whether the bytes lie in a cache or in memory."""

import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends.base import DecoderPair
from soaes.decode.engine import Engine
from soaes.decode.speculative import Speculative

FAR = 1 << 28  # bytes that no cache of today's desktops and servers holds for one core
TURNS = 5  # of each way to read; the quickest counts: other work only ever slows one
NEARER = 1.2  # a rate this much above memory's comes out of a cache


def weight_bytes(engine: Engine) -> int:
    """Bytes of the matrices that one step reads; of the embedding it reads a row, which is nothing."""
    return sum(matrix.plain.numel() * matrix.plain.element_size() for matrix in engine.matrices)


def read_rate(size: int) -> float:
    """Bytes a second, again and again over one buffer of `size` bytes, float32, by the quickest of three ways of torch's to read it."""
    numbers = torch.ones(size // 4096, 1024)
    ones, flat = torch.ones(1024), numbers.view(-1)
    ways = (flat.sum, lambda: torch.dot(flat, flat), lambda: torch.mv(numbers, ones))
    repeats = max(1, (FAR >> 3) // size)
    return max(numbers.numel() * 4 * repeats / _seconds(way, repeats) for way in ways * TURNS)


def _seconds(way, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        way()
    return time.perf_counter() - start


def lies_in(near: float, far: float) -> str:
    """Where the weights are read from, by the rate at their size and the rate of memory."""
    return "cache" if near > NEARER * far else "memory"


def random_pair(
    target: tuple[int, int],
    draft: tuple[int, int],
    vocabulary: int,
    n: int,
    eos: int,
    positions: int,
) -> DecoderPair:
    """Untrained models of (layers, width), greedy: what a step costs depends on shapes, not on what was learnt."""
    torch.manual_seed(0)
    engines = [
        Engine(_model(layers, width, vocabulary, positions)) for layers, width in (target, draft)
    ]
    settings = {"temperature": 0.0, "top_p": 1.0, "eos": eos}
    return DecoderPair(
        Speculative(*engines, n=n, **settings),
        Autoregressive(engines[0], **settings),
        n,
        positions,
        timeable=True,
    )


def _model(layers: int, width: int, vocabulary: int, positions: int) -> Qwen2ForCausalLM:
    """As the models of scale=tiny are made: heads of 32 units, three query heads to a key head where that divides, a feed-forward of 3 widths."""
    heads = width // 32
    return Qwen2ForCausalLM(Qwen2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads // 3 if heads % 3 == 0 else heads // 4,
        intermediate_size=3 * width, vocab_size=vocabulary, max_position_embeddings=positions, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )).eval()  # fmt: skip
