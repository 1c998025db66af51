"""What a draft would gain over texts that the target wrote, without decoding again.

Numbers only: not tokens, not models. The rule `rejection` emits token x at a drafted position by
accepting it with probability q(x) min(1, p(x)/q(x)) = min(p(x), q(x)), and emits it at all with
p(x) (Leviathan et al., 2023, appendix A.1). So of the x that are emitted there a share of

    r = min(p(x), q(x)) / p(x) = min(1, q(x) / p(x))

was accepted, the rest are corrections. Whatever stood in the block before, the rest of the text
has the target's distribution. Hence, given the text, its tokens are accepted independently, token t
with r_t, and the blocks are a Markov chain along it. Every expectation below is exact given the
text; its mean over texts drawn from the target is that of decoding, for every n, prompt and limit.
Greedy decoding is the case of r in {0, 1}, where the exact rules coincide. Under sampling
`token_match` has r = q(x) instead, and `block` is no such chain: this is its lower bound.

It does not hold for what a draft writes after its first rejected token, which is part of no text.
See `Expected.drafted`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# T tokens of one text, K places in a block: place k has k accepted tokens before it in its block,
# place n is the bonus token


class Expected(NamedTuple):
    """Expectations over the accept tests of one text, at one n; they add up over texts."""

    steps: float  # forwards of the target, one a block
    accepted: float  # drafted tokens that are emitted
    # accept tests up to each block's first rejection, that one included: those that decide
    reached: float
    # drafted tokens if no draft ends early after its first rejected token: an upper bound, of which
    # `reached` is the lower one
    drafted: float


def expected(r_T: np.ndarray, n: int, max_new_tokens: int) -> Expected:
    """Compute the expected steps and drafted tokens of decoding one text.

    Args:
        r_T: Probability that token t is accepted where it is tested, for T <= max_new_tokens
            tokens. A text of fewer tokens ends in eos: where that is accepted, its block has
            drafted nothing after it and adds no bonus token.
        n: Drafted tokens in a block.
        max_new_tokens: The decoder's limit. A block drafts at most what may still be written less
            one, and the last token that may be written is always the target's own.
    """
    places_K = np.eye(1, n + 1)[0]  # probability of each place for the next token
    steps, accepted, reached, drafted = 0.0, 0.0, 0.0, 0.0
    for written, r in enumerate(r_T):
        tested_K = places_K[:n] * (written + 1 < max_new_tokens)
        steps += places_K[0]
        drafted += places_K[0] * _room(n, max_new_tokens, written)
        reached += tested_K.sum()
        accepted += r * tested_K.sum()
        places_K = np.concatenate([[1 - r * tested_K.sum()], r * tested_K])
    # after the last token, place k > 0 means that k tokens were accepted, eos the last of them, and
    # that the block ended there
    length = len(r_T)
    drafted -= sum(
        places_K[k] * (_room(n, max_new_tokens, length - k) - k)
        for k in range(1, min(n, length) + 1)
    )
    return Expected(float(steps), float(accepted), float(reached), float(drafted))


def _room(n: int, max_new_tokens: int, written: int) -> int:
    """Tokens that a block may draft after `written` new ones."""
    return min(n, max_new_tokens - written - 1)


def speedup(
    tokens: float, steps: float, drafted: float, draft_cost: float, verify_cost: float
) -> float:
    """Compute tokens / (v steps + c drafted): the speedup over autoregression.

    With n drafted tokens in every step this is E / (n c + v); blocks at the end of a text draft
    fewer. With `Expected.drafted` it is a lower bound.

    Args:
        tokens: New tokens.
        steps: Forwards of the target.
        drafted: Drafted tokens.
        draft_cost: c, one drafted token in steps of autoregression.
        verify_cost: v, one verification of n + 1 tokens in steps of autoregression.
    """
    return tokens / (steps * verify_cost + drafted * draft_cost)
