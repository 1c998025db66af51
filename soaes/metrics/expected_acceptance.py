"""What a draft would gain over texts that the target has written, without decoding again. Numbers only: not tokens, not models.

The rule `rejection` emits token x at a drafted position by accepting it with probability q(x) min(1, p(x)/q(x)) = min(p(x), q(x)), and
emits it at all with p(x) (Leviathan et al., 2023, appendix A.1). So of the x that are emitted there a share of

    r = min(p(x), q(x)) / p(x) = min(1, q(x) / p(x))

was accepted, the rest corrected. Whatever stood in the block before, the rest of the text has the target's law; hence, given the text,
its tokens are accepted independently, token t with r_t, and the blocks are a Markov chain along it. Every expectation below is exact
given the text; its mean over texts drawn from the target is that of decoding, for every n, prompt and limit. Greedy is the case of
r in {0, 1}, where the exact rules are one. Under sampling `match` has r = q(x) instead, and `block` is no such chain: this is its lower
bound.

Not so for what a draft writes after its first rejected token: it stands on no text. See `drafted`.
"""

from typing import NamedTuple

import numpy as np

# T tokens of one text, K places in a block: place k has k accepted tokens before it in its block, place n is the bonus


class Expected(NamedTuple):
    """Expectations over the accept tests of one text, at one n; sums over texts are the same of a set of texts."""

    steps: float  # forwards of the target, one a block
    accepted: float  # drafted tokens that are emitted
    reached: float  # accept tests up to each block's first rejection, that one included: the tests whose outcome counts
    drafted: float  # drafted tokens, if no draft ends early after its first rejected token: an upper bound, `reached` the lower one


def expected(r_T: np.ndarray, n: int, most: int) -> Expected:
    """Steps and drafted tokens of a text of T <= most tokens whose token t is accepted, where it is tested, with r_T[t].

    n: drafted tokens a block; most: max_new_tokens of the decoder, so that a block drafts at most min(n, what may still be written less
    one), and the last token that may be written is always the target's own. A text that ends sooner ends in eos: where that is accepted,
    its block has drafted nothing after it and adds no bonus.
    """
    places_K, steps, accepted, reached, drafted = np.eye(1, n + 1)[0], 0.0, 0.0, 0.0, 0.0
    for written, r in enumerate(r_T):
        tested_K = places_K[:n] * (written + 1 < most)
        steps += places_K[0]
        drafted += places_K[0] * _room(n, most, written)
        reached += tested_K.sum()
        accepted += r * tested_K.sum()
        places_K = np.concatenate([[1 - r * tested_K.sum()], r * tested_K])
    # after the last token place k > 0 means: k accepted, eos the last of them, and the block ended there
    drafted -= sum(
        places_K[k] * (_room(n, most, len(r_T) - k) - k) for k in range(1, min(n, len(r_T)) + 1)
    )
    return Expected(*map(float, (steps, accepted, reached, drafted)))


def _room(n: int, most: int, written: int) -> int:
    """Tokens that a block may draft after `written` new ones."""
    return min(n, most - written - 1)


def speedup(
    tokens: float, steps: float, drafted: float, draft_cost: float, verify_cost: float
) -> float:
    """Tokens over the time that they take, in steps of autoregression: tokens / (v steps + c drafted).

    draft_cost c: one step of the draft; verify_cost v: one verification of n + 1 tokens, which may depend on n. With n drafted tokens in
    every step this is E / (n c + v); blocks at the end of a text draft fewer. `drafted` of `expected` makes it a lower bound.
    """
    return tokens / (steps * verify_cost + drafted * draft_cost)
