"""From logits to a distribution, and a draw from it. Pure functions; a generator is passed in.

Target and draft logits go through the same warp, before any ratio or residual is taken: warping
one side only changes the distribution of the text.
"""

from __future__ import annotations

import math

import torch

from soaes.decode.settings import SamplingSettings

# V vocabulary; any axes before it are rows

FIRST = 64  # tokens that nearly always hold a nucleus
NAN = (
    "the logits hold NaN: the checkpoint or its dtype is broken; "
    "look at its loss, or decode with dtype=float32"
)


def warp(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Turn logits into the distribution that is sampled from.

    Args:
        logits: [..., V].
        temperature: At least 0; 0 is greedy and gives a one-hot at the argmax.
        top_p: In (0, 1]: the mass of the nucleus that is kept; 1 keeps everything.

    Returns:
        Probabilities [..., V] in float32, or in float64 for logits in float64.

    Raises:
        ValueError: A setting is out of its range, or a row of logits holds NaN.
    """
    SamplingSettings(temperature, top_p)  # checks the two
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if temperature == 0:
        best = logits.max(-1).values  # NaN if any logit of the row is
        _refuse_nan(best)
        return one_hot(logits.argmax(-1), logits.shape[-1], logits.dtype)
    probabilities = torch.softmax(logits / temperature, -1)
    _refuse_nan(probabilities.sum(-1))
    return probabilities if top_p == 1 else nucleus(probabilities, top_p)


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of most probable tokens whose mass reaches `top_p`, and renormalise.

    Args:
        probabilities: [..., V].
        top_p: In (0, 1].
    """
    vocabulary = probabilities.shape[-1]
    # a full sort of 1,500 tokens costs ten times as much as finding the first 64
    for count in (FIRST, vocabulary):
        sorted_probs, tokens = probabilities.topk(min(count, vocabulary), -1)
        mass = sorted_probs.cumsum(-1)
        if bool((mass[..., -1] >= top_p).all()):
            break
    mass_before = mass - sorted_probs
    nucleus_probs = sorted_probs * (mass_before < top_p)
    nucleus_probs = nucleus_probs / nucleus_probs.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter_(-1, tokens, nucleus_probs)


def greedy(logits: torch.Tensor) -> list[int]:
    """Return the most probable token of each row of logits [rows, V].

    Raises:
        ValueError: A row holds NaN.
    """
    best, tokens = logits.max(-1)
    if any(math.isnan(value) for value in best.tolist()):
        raise ValueError(NAN)
    token_ids: list[int] = tokens.tolist()
    return token_ids


def sample(probabilities_V: torch.Tensor, generator: torch.Generator) -> int:
    """Draw one token by inverting the cumulative distribution at one uniform number.

    The first token whose cumulated mass exceeds u * total has mass of its own, so a token of
    probability 0 is never drawn.
    """
    mass_V = probabilities_V.cumsum(-1, dtype=torch.float64)
    point = uniforms(1, generator).to(mass_V.device) * mass_V[-1]
    return int(torch.searchsorted(mass_V, point, right=True))


def uniforms(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw numbers in [0, 1) as float64.

    On the generator's own device, so that a seed means the same on every device.
    """
    return torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)


def one_hot(tokens: torch.Tensor, vocabulary: int, dtype: torch.dtype) -> torch.Tensor:
    """Return distributions [..., V] with all mass on the token of each row [...]."""
    rows = torch.zeros(*tokens.shape, vocabulary, dtype=dtype, device=tokens.device)
    return rows.scatter_(-1, tokens[..., None], 1.0)


def _refuse_nan(witness: torch.Tensor) -> None:
    """Raise if a row's maximum or sum is NaN: both pass a NaN of the row on."""
    if bool(witness.isnan().any()):
        raise ValueError(NAN)
