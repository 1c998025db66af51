"""Kappa is scikit-learn's, its interval covers, and nothing is made up where it is undefined."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from soaes.data.annotation.agreement import agreement, wilson

WORDS = np.array(["accept", "edit", "reject"])


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    first = random.choice(WORDS, 40, p=[0.6, 0.3, 0.1])
    second = np.where(random.random(40) < 0.6, first, random.choice(WORDS, 40))
    ours = agreement(list(zip(first, second, strict=True)))
    assert ours.kappa == pytest.approx(cohen_kappa_score(first, second))
    assert ours.items == 40 and ours.raw == np.mean(first == second)


def test_a_case_computed_by_hand():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = .7, p_e = .5, kappa = .4."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5
    pairs += [("no", "yes")] * 10 + [("no", "no")] * 15
    ours = agreement(pairs)
    assert ours.kappa == pytest.approx(0.4)
    low, high = wilson(35, 50)
    assert ours.low == pytest.approx((low - 0.5) / 0.5)
    assert ours.high == pytest.approx((high - 0.5) / 0.5)


def test_kappa_is_undefined_where_all_verdicts_are_one_word():
    ours = agreement([("accept", "accept")] * 9)
    assert ours.raw == 1 and ours.kappa is ours.low is ours.high is None
    assert agreement([]).kappa is None


def test_perfect_agreement_on_few_items_has_an_interval():
    ours = agreement([("yes", "yes"), ("no", "no"), ("yes", "yes")])
    assert ours.kappa == 1 and ours.high == 1 and ours.low < 0.5


def test_the_interval_covers_the_true_kappa():
    """Two people who agree on .8 of 60 items beyond chance, on two equally frequent verdicts."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        first = random.random(60) < 0.5
        second = np.where(random.random(60) < 0.8, first, random.random(60) < 0.5)
        ours = agreement(list(zip(first.astype(str), second.astype(str), strict=True)))
        covered += ours.low <= 0.8 <= ours.high
    assert covered / 300 >= 0.93
