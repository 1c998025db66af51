"""95 % intervals by a hierarchical bootstrap: seeds are drawn with replacement, then test samples. Numbers only: no files, no tables.

A quantity (a metric, a difference of two rows, a quotient) is measured once a seed. Its replicate is a mean over drawn seeds, each
scored on drawn samples. One draw of samples serves every row and every seed that was scored on them: rows are compared in pairs, and
what is easy or hard about a question, being the same in all seeds, does not average out over them.

Two corrections. Of n samples in a stratum n - 1 are drawn and weighted n / (n - 1), which makes the variance of a mean unbiased
(Rao and Wu 1988). A mean over S drawn seeds varies too little by (S - 1) / S, and few seeds tell little about their own spread: the
seeds' part of each deviation is widened by sqrt(S / (S - 1)) and by Student's t over the normal quantile (the expanded percentile
interval, Hesterberg 2015, "What teachers should know about the bootstrap"). One seed has no such part: the interval is then over
the samples alone. Measured coverage stands in tests/metrics/test_bootstrap.py: at least the nominal, more where questions outweigh seeds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

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
# B replicates, S seeds, N samples

Pool = tuple[
    tuple[Hashable, Hashable], ...
]  # of each sample its stratum (drawn by itself) and what it is known by in every row
Terms = Sequence["Measured"]


@dataclass(frozen=True, eq=False)
class Samples:
    """A metric as a function of how often each sample of its pool was drawn: counts_BN -> values_B, at all ones the metric itself."""

    pool: Pool
    statistic: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """A metric of one row in one seed; without samples it is a constant within its seed."""

    value: float
    sampled: Samples | None = None


@dataclass(frozen=True)
class Effect:
    """A quantity's mean over seeds and its interval; low and high are NaN where nothing says how it varies."""

    value: float
    low: float
    high: float
    seeds: int


def effect(seeds: Sequence[Terms], combine: Callable[[Sequence], np.ndarray]) -> Effect:
    """The effect of `combine` over the terms of each seed, which are the same metrics in the same order; both numbers and arrays go in."""
    with np.errstate(divide="ignore", invalid="ignore"):
        centre_S = np.array(
            [combine([np.float64(term.value) for term in terms]) for terms in seeds], dtype=float
        )
        deviation_B = _deviations(seeds, combine, centre_S)
    mean = float(centre_S.mean())
    if (
        not any(term.sampled for terms in seeds for term in terms)
        and len(seeds) == 1
        or not np.isfinite(mean)
    ):
        return Effect(mean, np.nan, np.nan, len(seeds))
    low, high = mean + np.nanquantile(deviation_B, (0.025, 0.975))
    return Effect(mean, float(low), float(high), len(seeds))


def _deviations(seeds: Sequence[Terms], combine: Callable, centre_S: np.ndarray) -> np.ndarray:
    """Replicates less the effect: what comes of the drawn seeds, widened, and what comes of the drawn samples."""
    pool = _union([term.sampled.pool for terms in seeds for term in terms if term.sampled])
    values_SB = np.stack(
        [
            np.broadcast_to(combine([_replicates(term, pool) for term in terms]), REPLICATES)
            for terms in seeds
        ]
    )
    drawn_BS = _drawn_seeds(len(seeds))
    of_seeds_B = centre_S[drawn_BS].mean(1) - centre_S.mean()
    of_samples_B = (values_SB - centre_S[:, None])[drawn_BS, np.arange(REPLICATES)[:, None]].mean(1)
    return widening(len(seeds)) * of_seeds_B + of_samples_B


def _replicates(term: Measured, pool: Pool) -> np.ndarray:
    return _resampled(term.sampled, pool) if term.sampled else np.float64(term.value)


@lru_cache(maxsize=4096)
def _resampled(sampled: Samples, pool: Pool) -> np.ndarray:
    """A statistic on the draws of a pool that holds all its samples and maybe more."""
    counts_BN = draws(pool)
    if sampled.pool != pool:
        places = {key: at for at, key in enumerate(pool)}
        counts_BN = counts_BN[:, [places[key] for key in sampled.pool]]
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a statistic none of whose samples was drawn is NaN, and left out
        return sampled.statistic(counts_BN)


def _union(pools: Sequence[Pool]) -> Pool:
    if all(pool == pools[0] for pool in pools):
        return pools[0] if pools else ()
    return tuple(dict.fromkeys(key for pool in pools for key in pool))


@lru_cache(maxsize=8)
def draws(pool: Pool) -> np.ndarray:
    """counts_BN: of each stratum n - 1 samples with replacement, weighted n / (n - 1). A sample alone in its stratum cannot vary."""
    rng = np.random.default_rng(SEED)
    counts_BN = np.ones((REPLICATES, len(pool)))
    strata: dict[Hashable, list[int]] = {}
    for at, (stratum, _) in enumerate(pool):
        strata.setdefault(stratum, []).append(at)
    for places in strata.values():
        if (n := len(places)) > 1:
            drawn = rng.integers(n, size=(REPLICATES, n - 1)) + n * np.arange(REPLICATES)[:, None]
            counts_BN[:, places] = (
                np.bincount(drawn.ravel(), minlength=REPLICATES * n).reshape(REPLICATES, n)
                * n
                / (n - 1)
            )
    return counts_BN


@cache
def _drawn_seeds(seeds: int) -> np.ndarray:
    return np.random.default_rng(SEED + seeds).integers(seeds, size=(REPLICATES, seeds))


def widening(seeds: int) -> float:
    """What the seeds' part of a deviation is multiplied by; 1.5 at five seeds, 1 at one, which has none."""
    if seeds == 1:
        return 1.0
    return float(np.sqrt(seeds / (seeds - 1)) * student(seeds - 1) / NORMAL)


def student(freedom: int) -> float:
    """t at 97.5 %: from the table up to 10 degrees of freedom, then Abramowitz and Stegun 26.7.5, right to 0.001."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
