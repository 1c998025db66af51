"""From logits to a distribution, and a draw from it. Pure functions: a generator carries all randomness.

Target and draft go through the same warp, before any ratio or residual: a warp on one side changes the law.
"""

import math

import torch

from soaes.pipeline.validation import check

# V vocabulary; any axes before it are rows
FIRST = 64  # tokens that nearly always hold a nucleus
NAN = "the logits hold NaN: the checkpoint or its dtype is broken; look at its loss, or decode with dtype=float32"


def warp(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Softmax at a temperature, cut to its nucleus and renormalised; the last axis is the vocabulary.

    Temperature 0 is greedy: a one-hot at the argmax.
    """
    check(temperature=temperature, top_p=top_p)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if temperature == 0:
        return one_hot(
            _without_nan(logits.argmax(-1), logits.max(-1).values), logits.shape[-1], logits.dtype
        )
    probabilities = torch.softmax(logits / temperature, -1)
    _without_nan(probabilities, probabilities.sum(-1))
    return probabilities if top_p == 1 else nucleus(probabilities, top_p)


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest set of most probable tokens whose mass reaches top_p, renormalised."""
    for count in (
        FIRST,
        probabilities.shape[-1],
    ):  # a full sort costs ten times the first 64 of 1,500 tokens
        sorted_, tokens = probabilities.topk(min(count, probabilities.shape[-1]), -1)
        mass = sorted_.cumsum(-1)
        if bool((mass[..., -1] >= top_p).all()):
            break
    kept = sorted_ * (mass - sorted_ < top_p)
    return torch.zeros_like(probabilities).scatter_(-1, tokens, kept / kept.sum(-1, keepdim=True))


def greedy(logits: torch.Tensor) -> list[int]:
    """The most probable token of each row."""
    best, tokens = logits.max(-1)
    if any(math.isnan(value) for value in best.tolist()):
        raise ValueError(NAN)
    return tokens.tolist()


def sample(probabilities_V: torch.Tensor, generator: torch.Generator) -> int:
    """One token, by the inverse of the distribution function of one uniform number.

    The first token whose cumulated mass exceeds u * total has mass of its own: a token of probability 0 is never drawn.
    """
    mass_V = probabilities_V.cumsum(-1, dtype=torch.float64)
    point = uniforms(1, generator).to(mass_V.device) * mass_V[-1]
    return int(torch.searchsorted(mass_V, point, right=True))


def uniforms(count: int, generator: torch.Generator) -> torch.Tensor:
    """Numbers in [0, 1) as float64, on the generator's own device, so that a seed means the same on every device."""
    return torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)


def one_hot(tokens: torch.Tensor, vocabulary: int, dtype: torch.dtype) -> torch.Tensor:
    """All mass on one token a row."""
    rows = torch.zeros(*tokens.shape, vocabulary, dtype=dtype, device=tokens.device)
    return rows.scatter_(-1, tokens[..., None], 1.0)


def _without_nan(result: torch.Tensor, witness: torch.Tensor) -> torch.Tensor:
    """The result, unless a row's witness is NaN: a maximum and a sum both pass a NaN on."""
    if bool(witness.isnan().any()):
        raise ValueError(NAN)
    return result
