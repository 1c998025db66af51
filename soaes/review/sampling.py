"""How many items of a lot may be wrong, when a random part of them was reviewed.

A lot has N items, K of which are wrong. Items are reviewed in random order; after n of them x were
wrong. The upper bound is the largest K that a confidence sequence still holds possible: under a
beta-binomial prior over K, the ratio of prior to posterior is a martingale for the true K, and
exceeds 1 / alpha at any moment with a probability of at most alpha (Ville's inequality;
Waudby-Smith and Ramdas, 2020, "Confidence sequences for sampling without replacement"). So the
bound holds however often it is looked at and whenever the review stops, and it is exact for a
finite lot: when all are reviewed it is x.
"""

from __future__ import annotations

from math import lgamma, log

ALPHA = 0.05  # the bound fails with at most this probability

# Of the prior over the share of wrong items, whose mean is 1 / 21. It decides how many items are
# needed, and never whether the bound holds.
PRIOR_WRONG, PRIOR_RIGHT = 1.0, 20.0


def most_wrong(size: int, reviewed: int, wrong: int) -> int:
    """Return the upper bound of the number of wrong items of a lot, the reviewed ones included.

    Args:
        size: Items of the lot.
        reviewed: Of these, items that were reviewed in random order.
        wrong: Of these, items that were wrong.

    Raises:
        ValueError: There are more wrong than reviewed items, or more reviewed ones than items.
    """
    if not 0 <= wrong <= reviewed <= size:
        raise ValueError(
            f"size={size}, reviewed={reviewed}, wrong={wrong}: wrong items are reviewed ones, and "
            "these are items of the lot"
        )
    low, high = wrong, size - (reviewed - wrong)
    # the posterior has one peak; from there on the ratio falls
    low = min(high, max(low, round(wrong / reviewed * size))) if reviewed else high
    while low < high:
        middle = (low + high + 1) // 2
        if _is_possible(middle, size, reviewed, wrong):
            low = middle
        else:
            high = middle - 1
    return low


def rest_bound(size: int, reviewed: int, wrong: int) -> float:
    """Return the upper bound of the share of wrong items among those that nobody reviewed."""
    rest = size - reviewed
    return (most_wrong(size, reviewed, wrong) - wrong) / rest if rest else 0.0


def expected_reviews(size: int, reviewed: int, wrong: int, limit: float) -> int:
    """Return after how many reviews the rest will be within a limit, if the share of wrong stays.

    Args:
        size: Items of the lot.
        reviewed: Items that were reviewed.
        wrong: Of these, items that were wrong.
        limit: Largest share of wrong items among the rest.

    Returns:
        At least `reviewed`; `size` where no part of the lot is enough.
    """
    share = wrong / reviewed if reviewed else 0.0
    low, high = reviewed, size
    while low < high:
        middle = (low + high) // 2
        if rest_bound(size, middle, round(share * middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


def _is_possible(total_wrong: int, size: int, reviewed: int, wrong: int) -> bool:
    """Return whether the confidence sequence holds a number of wrong items."""
    posterior = _log_beta_binomial(
        total_wrong - wrong,
        size - reviewed,
        PRIOR_WRONG + wrong,
        PRIOR_RIGHT + reviewed - wrong,
    )
    prior = _log_beta_binomial(total_wrong, size, PRIOR_WRONG, PRIOR_RIGHT)
    return posterior - prior >= log(ALPHA)


def _log_beta_binomial(count: int, size: int, wrong: float, right: float) -> float:
    """Return the log-probability of a count under a beta-binomial distribution."""
    choices = lgamma(size + 1) - lgamma(count + 1) - lgamma(size - count + 1)
    return choices + _log_beta(count + wrong, size - count + right) - _log_beta(wrong, right)


def _log_beta(first: float, second: float) -> float:
    return lgamma(first) + lgamma(second) - lgamma(first + second)
