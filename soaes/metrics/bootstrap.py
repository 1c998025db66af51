"""95 % intervals by a hierarchical bootstrap over seeds and test samples.

A quantity (a metric, a difference of two rows, a quotient) is measured once per seed. Seeds are
drawn with replacement, then test samples: a replicate is a mean over drawn seeds, each scored on
drawn samples. One draw of samples serves every row and every seed that was scored on them. Rows are
thus compared in pairs, and the difficulty of a question, being the same in all seeds, does not
average out over them.

Two corrections:

- Of n samples in a stratum n - 1 are drawn and weighted n / (n - 1), which makes the variance of a
  mean unbiased (Rao and Wu 1988).
- A mean over S drawn seeds varies too little by (S - 1) / S, and few seeds tell little about their
  own spread. The seeds' part of each deviation is widened by sqrt(S / (S - 1)) and by Student's t
  over the normal quantile (the expanded percentile interval, Hesterberg 2015, "What teachers should
  know about the bootstrap"). One seed has no such part: the interval is over the samples alone.

tests/metrics/test_bootstrap.py measures the coverage: at least the nominal, more where questions
outweigh seeds. Knows numbers only: no files, no tables.

Shapes: B replicates, S seeds, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

REPLICATES = 2000
SEED = 20  # of the draws: the same numbers give the same interval
NORMAL = 1.959964
STUDENT = (
    12.7062,
    4.3027,
    3.1824,
    2.7764,
    2.5706,
    2.4469,
    2.3646,
    2.3060,
    2.2622,
    2.2281,
)  # t at 97.5 % for 1 .. 10 degrees of freedom

# of each sample its stratum, which is drawn by itself, and its identity across rows
Pool = tuple[tuple[Hashable, Hashable], ...]
Terms = Sequence["Measured"]
Combine = Callable[[Sequence[Any]], Any]  # values of terms, numbers or arrays of replicates


@dataclass(frozen=True, eq=False)
class Samples:
    """A metric as a function of how often each sample of its pool was drawn."""

    pool: Pool
    statistic: Callable[[np.ndarray], np.ndarray]  # counts_BN -> values_B; at ones, the metric


@dataclass(frozen=True)
class Measured:
    """A metric of one row in one seed; without samples it is a constant within its seed."""

    value: Any  # a number, or a text that no effect is taken of
    sampled: Samples | None = None
    stage: str = ""  # the name of the one that measured it


@dataclass(frozen=True)
class Effect:
    """A quantity's mean over seeds and its 95 % interval."""

    value: float
    low: float  # NaN, as `high`, where nothing says how the quantity varies
    high: float
    seeds: int


def effect(seeds: Sequence[Terms], combine: Combine) -> Effect:
    """Measure a quantity and its interval.

    Args:
        seeds: The terms of each seed: the same metrics in the same order.
        combine: The quantity as a function of its terms' values, numbers and arrays alike.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        values = [combine([np.float64(term.value) for term in terms]) for terms in seeds]
        centre_S = np.array(values, dtype=float)
        deviation_B = _deviations(seeds, combine, centre_S)
    mean = float(centre_S.mean())
    is_sampled = any(term.sampled for terms in seeds for term in terms)
    if not np.isfinite(mean) or (len(seeds) == 1 and not is_sampled):
        return Effect(mean, np.nan, np.nan, len(seeds))
    low, high = mean + np.nanquantile(deviation_B, (0.025, 0.975))
    return Effect(mean, float(low), float(high), len(seeds))


def _deviations(seeds: Sequence[Terms], combine: Combine, centre_S: np.ndarray) -> np.ndarray:
    """Replicates less the effect: of the drawn seeds, widened, and of the drawn samples."""
    pool = _union([term.sampled.pool for terms in seeds for term in terms if term.sampled])
    values_SB = np.stack([_combined_replicates(terms, combine, pool) for terms in seeds])
    drawn_BS = _drawn_seeds(len(seeds))
    from_seeds_B = centre_S[drawn_BS].mean(1) - centre_S.mean()
    replicate_B1 = np.arange(REPLICATES)[:, None]
    from_samples_B = (values_SB - centre_S[:, None])[drawn_BS, replicate_B1].mean(1)
    return widening(len(seeds)) * from_seeds_B + from_samples_B


def _combined_replicates(terms: Terms, combine: Combine, pool: Pool) -> np.ndarray:
    return np.broadcast_to(combine([_replicates(term, pool) for term in terms]), REPLICATES)


def _replicates(term: Measured, pool: Pool) -> np.ndarray | np.float64:
    return _resampled(term.sampled, pool) if term.sampled else np.float64(term.value)


@lru_cache(maxsize=4096)
def _resampled(sampled: Samples, pool: Pool) -> np.ndarray:
    """A statistic on the draws of a pool that holds all its samples and maybe more."""
    counts_BN = draws(pool)
    if sampled.pool != pool:
        indices = {key: index for index, key in enumerate(pool)}
        counts_BN = counts_BN[:, [indices[key] for key in sampled.pool]]
    # a statistic none of whose samples was drawn is NaN, and left out
    with np.errstate(divide="ignore", invalid="ignore"):
        return sampled.statistic(counts_BN)


def _union(pools: Sequence[Pool]) -> Pool:
    if all(pool == pools[0] for pool in pools):
        return pools[0] if pools else ()
    return tuple(dict.fromkeys(key for pool in pools for key in pool))


@lru_cache(maxsize=8)
def draws(pool: Pool) -> np.ndarray:
    """Draw the samples of a pool, stratum by stratum.

    Returns:
        counts_BN: of each stratum of n samples, n - 1 drawn with replacement and weighted
        n / (n - 1). A sample alone in its stratum cannot vary and counts 1.
    """
    rng = np.random.default_rng(SEED)
    counts_BN = np.ones((REPLICATES, len(pool)))
    strata: dict[Hashable, list[int]] = {}
    for index, (stratum, _) in enumerate(pool):
        strata.setdefault(stratum, []).append(index)
    for indices in strata.values():
        n = len(indices)
        if n > 1:
            # one bincount for all replicates: replicate b counts in bins b n .. (b + 1) n - 1
            offsets_B1 = n * np.arange(REPLICATES)[:, None]
            drawn = rng.integers(n, size=(REPLICATES, n - 1)) + offsets_B1
            tally = np.bincount(drawn.ravel(), minlength=REPLICATES * n)
            counts_BN[:, indices] = tally.reshape(REPLICATES, n) * n / (n - 1)
    return counts_BN


@cache
def _drawn_seeds(seeds: int) -> np.ndarray:
    return np.random.default_rng(SEED + seeds).integers(seeds, size=(REPLICATES, seeds))


def widening(seeds: int) -> float:
    """Return the factor of the seeds' part of a deviation: 1.6 at five seeds, 1 at one.

    One seed has no such part.
    """
    if seeds == 1:
        return 1.0
    return float(np.sqrt(seeds / (seeds - 1)) * student(seeds - 1) / NORMAL)


def student(freedom: int) -> float:
    """Return Student's t at 97.5 %.

    From the table up to 10 degrees of freedom, then by Abramowitz and Stegun 26.7.5, which is right
    to 0.001.
    """
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
