"""How well two people agree who decided on the same items without seeing each other's decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

Z = 1.959963984540054  # of a 95 % interval


class Agreement(NamedTuple):
    """Agreement over pairs of verdicts."""

    items: int
    raw: float  # share of items with two equal verdicts; 0 where there is none
    kappa: float | None  # None where it is undefined: all verdicts are the same word
    low: float | None  # the 95 % interval of kappa
    high: float | None


def agreement(pairs: Sequence[tuple[str, str]]) -> Agreement:
    """Return raw agreement and Cohen's kappa (1960) of (first, second) verdicts.

    kappa = (p_o - p_e) / (1 - p_e), where p_o is the share of equal pairs, and p_e what two people
    with these frequencies of verdicts would reach by chance. Its interval takes Wilson's limits of
    p_o and p_e as fixed, so that it does not shrink to a point where all pairs are equal.
    """
    items = len(pairs)
    if not items:
        return Agreement(0, 0.0, None, None, None)
    equal = sum(first == second for first, second in pairs)
    firsts = Counter(first for first, _ in pairs)
    seconds = Counter(second for _, second in pairs)
    expected = sum(firsts[word] * seconds[word] for word in firsts) / items**2
    raw = equal / items
    if expected == 1:
        return Agreement(items, raw, None, None, None)
    low, high = wilson(equal, items)
    kappa, kappa_low, kappa_high = (
        (share - expected) / (1 - expected) for share in (raw, low, high)
    )
    return Agreement(items, raw, kappa, max(-1.0, kappa_low), kappa_high)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval (1927) of a share.

    Args:
        successes: How many trials had it.
        trials: At least 1.
    """
    share = successes / trials
    centre = share + Z**2 / (2 * trials)
    half = Z * sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    scale = 1 + Z**2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
