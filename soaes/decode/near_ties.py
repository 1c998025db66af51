"""Whether a greedy output is the target's own: token by token, or but for near ties.

A step and the verification of a block are different products, and round differently. Where two
logits are closer than that, either token is the target's choice, and the texts part there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from soaes.decode.prompts import Prompt

# T tokens of an output from some position on, V vocabulary


class Target(NamedTuple):
    """What a near tie is judged by: a model in the dtype of the outputs."""

    # (token ids, tail) -> the target's logits_TV at the last `tail` of them
    logits: Callable[[list[int], int], torch.Tensor]
    terms: int  # of the longest sum in its matrix products


# Roundings between two computations of the difference of two logits. In either computation, either
# logit is rounded when it is stored, and is a product of a hidden state that was rounded as well:
# 2 x 2 x 2 errors times the size of a logit. In low precision, whose products are summed in
# float32, such an error is at most u, the unit roundoff. In float32 the sums themselves round: n
# terms by about sqrt(n) u (Higham and Mary 2019, A new approach to probabilistic rounding error
# analysis). Earlier layers round too, but what they add to the residual stream is small against it:
# random models of 1 to 24 layers differ by less than half the bound at every depth and width, in
# each of the three precisions, and trained ones of scale=tiny by a quarter.
ROUNDINGS = 8


def tie_bound(dtype: str, terms: int) -> float:
    """Return the largest gap of a near tie, as a share of the largest logit at its position.

    Args:
        dtype: float32, bfloat16 or float16.
        terms: Of the longest sum in the target's matrix products.

    Returns:
        1/32 in bfloat16, 1/256 in float16; in float32 1e-5 where sums have 441 terms.
    """
    unit_roundoff = torch.finfo(getattr(torch, dtype)).eps / 2
    accumulated = terms**0.5 if dtype == "float32" else 1.0
    return ROUNDINGS * accumulated * unit_roundoff


@torch.inference_mode()
def count_near_ties(
    target: Target, prompt: Prompt, output: list[int], reference: list[int], eos: int, dtype: str
) -> int:
    """Check that a greedy output is the target's own, but for near ties.

    The target reads the output at once. From the first token that differs on, every token must be
    its first choice, or near it; so must be autoregression's at the first difference.

    Args:
        target: Reads a text, in the dtype of both outputs.
        prompt: What was decoded.
        output: The new tokens of a decoder.
        reference: Those of autoregression.
        eos: Id of the token that ends a text.
        dtype: float32, bfloat16 or float16.

    Returns:
        The tokens of the output that a near tie decided otherwise; 0 if both are equal.

    Raises:
        ValueError: A token is not the target's, or the output ends where the target would not.
    """
    if output == reference:
        return 0
    start = _first_difference(output, reference)
    refused = f"row refused: prompt {prompt.id} differs from autoregression at new token {start}"
    is_prefix = start == min(len(output), len(reference))
    is_complete = eos in output or len(output) == prompt.max_new_tokens
    if is_prefix or not is_complete or eos in output[:-1]:
        raise ValueError(f"{refused}: it ends where the target does not; the decoder is wrong")

    logits_TV = target.logits(prompt.ids + output[:-1], len(output))[start:]
    written_T = torch.tensor(output[start:], device=logits_TV.device)
    best_T = logits_TV.max(-1).values.float()
    logit_T = logits_TV.gather(1, written_T[:, None]).squeeze(1).float()
    gap_T = best_T - logit_T
    is_other_T = gap_T > 0
    is_other_T[0] = True
    logit_of_reference = logits_TV[0, reference[start]].float()
    gap_T[0] = max(gap_T[0], best_T[0] - logit_of_reference)
    bound_T = tie_bound(dtype, target.terms) * logits_TV.abs().max(-1).values.float()
    too_far = (gap_T > bound_T).nonzero().flatten().tolist()
    if too_far:
        first = too_far[0]
        way_out = "the decoder is wrong"
        if dtype != "float32":
            way_out = "set dtype=float32, which rounds less"
        raise ValueError(
            f"{refused}, and at no near tie: at new token {start + first} a logit is "
            f"{gap_T[first]:.3g} below the target's best, and {dtype} rounds by "
            f"{bound_T[first]:.3g} at most; {way_out}"
        )
    return int(is_other_T.sum())


def _first_difference(output: list[int], reference: list[int]) -> int:
    """The first position at which two outputs differ; the shorter one's length if none does."""
    for position, (token, expected) in enumerate(zip(output, reference)):
        if token != expected:
            return position
    return min(len(output), len(reference))
