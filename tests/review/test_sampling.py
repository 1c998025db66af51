"""The bound on what nobody read holds at every moment, and costs no more than it must."""

from math import comb

import numpy as np
import pytest

from soaes.review import sampling


def test_the_bound_holds_whenever_one_looks():
    """Of 400 lots, the bound is below the truth at any time in at most 5 % (and some noise)."""
    random = np.random.default_rng(0)
    size, wrong = 60, 6
    bounds = {
        (n, x): sampling.most_wrong(size, n, x)
        for n in range(size + 1)
        for x in range(wrong + 1)
        if x <= n and wrong - x <= size - n
    }
    misses = 0
    for _ in range(400):
        order = random.permutation(size) < wrong
        seen = np.concatenate([[0], np.cumsum(order)])
        misses += any(bounds[n, int(x)] < wrong for n, x in enumerate(seen))
    assert misses <= 0.05 * 400 + 2 * np.sqrt(0.05 * 0.95 * 400)


@pytest.mark.parametrize("reviewed_and_wrong", ["0 0", "1 1", "8 0", "8 3", "20 20"])
def test_the_bound_is_the_largest_count_that_the_definition_allows(reviewed_and_wrong):
    """Against the ratio of posterior and prior, computed from whole numbers."""
    size = 20
    reviewed, wrong = map(int, reviewed_and_wrong.split())

    def beta_binomial(count, trials, first, second):
        def rising(start, steps):
            return np.prod([start + step for step in range(steps)], initial=1.0)

        ways = comb(trials, count) * rising(first, count) * rising(second, trials - count)
        return ways / rising(first + second, trials)

    right = reviewed - wrong
    a, b = sampling.PRIOR_WRONG, sampling.PRIOR_RIGHT
    possible = [
        count
        for count in range(wrong, size - right + 1)
        if beta_binomial(count - wrong, size - reviewed, a + wrong, b + right)
        >= sampling.ALPHA * beta_binomial(count, size, a, b)
    ]
    assert sampling.most_wrong(size, reviewed, wrong) == max(possible)


def test_a_lot_that_was_read_whole_is_known():
    assert sampling.most_wrong(500, 500, 17) == 17
    assert sampling.rest_bound(500, 500, 17) == 0


def test_some_ninety_items_without_an_error_accept_a_large_lot():
    needed = sampling.expected_reviews(30_000, 0, 0, 0.05)
    assert 80 <= needed <= 100
    assert sampling.rest_bound(30_000, needed, 0) <= 0.05 < sampling.rest_bound(30_000, 59, 0)


def test_a_bad_lot_is_read_whole():
    assert sampling.expected_reviews(1000, 50, 10, 0.05) > 950


def test_numbers_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="wrong=3"):
        sampling.most_wrong(10, 2, 3)
