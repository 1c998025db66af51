"""Precision and missed duplicates are those of a case computed by hand, and intervals cover."""

import numpy as np
import pytest

from soaes.data.annotation.pair_estimates import Stratum, missed, precision


def dropped(size, decided, duplicates):
    return Stratum(True, size, decided, duplicates)


def kept(size, decided, duplicates):
    return Stratum(False, size, decided, duplicates)


def test_a_case_computed_by_hand():
    """Of 150 dropped pairs 90 + 50 are duplicates; of 30 kept ones 6, so 6 of 146 were missed."""
    strata = [dropped(100, 20, 18), dropped(50, 10, 10), kept(30, 10, 2)]
    found = precision(strata)
    assert found.value == pytest.approx(140 / 150)
    assert 0.75 < found.low < found.value < found.high < 1
    left = missed(strata)
    assert left.value == pytest.approx(6 / 146)
    assert 2 / 146 < left.low < left.value < left.high < 0.12


def test_what_was_decided_altogether_is_known():
    strata = [dropped(12, 12, 11), kept(8, 8, 1)]
    assert precision(strata) == pytest.approx((11 / 12,) * 3)
    assert missed(strata) == pytest.approx((1 / 12,) * 3)


def test_what_nobody_decided_widens_the_interval_and_is_not_made_up():
    strata = [dropped(100, 0, 0)]
    found = precision(strata)
    assert found.value is None and found.low < 0.05 and found.high > 0.95
    partly = precision([dropped(100, 50, 50), *strata])
    assert partly.value == 1 and partly.low < 0.55
    assert precision([kept(5, 1, 0)]) is None and missed([]) is None
    assert missed([kept(5, 5, 0)]).value is None


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    num_worlds = 40
    for _ in range(num_worlds):
        strata, truths = [], []
        for size, decided, share in ((200, 30, 0.97), (80, 20, 0.7)):
            duplicates = rng.binomial(size, share)
            seen = rng.hypergeometric(duplicates, size - duplicates, decided)
            strata.append(dropped(size, decided, seen))
            truths.append(duplicates)
        found = precision(strata)
        covered += found.low <= sum(truths) / 280 <= found.high
    assert covered >= 0.88 * num_worlds
