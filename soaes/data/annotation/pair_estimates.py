"""How often a drop was right and how many duplicates were missed, from a sample that people judged.

Pairs of documents are drawn from strata: what became of the pair, and the band of its similarity.
Of each stratum all of its size is known but how many of its pairs are duplicates, so that its rest,
which nobody judged, follows a beta-binomial distribution (Jeffreys' prior, Beta(1/2, 1/2)). Totals
over strata are simulated; intervals hold 95 % of them. Knows numbers, no texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SIMULATIONS = 10_000
SEED = 0
PRIOR = 0.5
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Stratum:
    """Pairs of one fate and band of similarity.

    Attributes:
        dropped: Whether one of the two was dropped for the other.
        size: Pairs that there are.
        decided: Of these, pairs on which people agree; drawn at random.
        duplicates: Of these, pairs that are one document.
    """

    dropped: bool
    size: int
    decided: int
    duplicates: int


class Share(NamedTuple):
    """A share with its 95 % interval."""

    value: float | None  # of the strata in which something is decided; None where nothing is
    low: float
    high: float


def precision(strata: Sequence[Stratum]) -> Share | None:
    """Return the share of dropped pairs that are duplicates; None where nothing was dropped."""
    dropped = [stratum for stratum in strata if stratum.dropped]
    if not dropped:
        return None
    size = sum(stratum.size for stratum in dropped)
    known = [stratum for stratum in dropped if stratum.decided]
    known_size = sum(stratum.size for stratum in known)
    value = sum(map(_expected, known)) / known_size if known else None
    return _share(value, _simulated(dropped, np.random.default_rng(SEED)) / size)


def missed(strata: Sequence[Stratum]) -> Share | None:
    """Return the share of all duplicates that were kept; None where there are no pairs."""
    if not strata:
        return None
    known = [stratum for stratum in strata if stratum.decided]
    kept = sum(_expected(stratum) for stratum in known if not stratum.dropped)
    found = sum(_expected(stratum) for stratum in known if stratum.dropped)
    value = kept / (kept + found) if kept + found else None
    rng = np.random.default_rng(SEED)
    simulated_kept = _simulated([stratum for stratum in strata if not stratum.dropped], rng)
    simulated_found = _simulated([stratum for stratum in strata if stratum.dropped], rng)
    total = np.maximum(simulated_kept + simulated_found, 1)
    return _share(value, simulated_kept / total)


def _expected(stratum: Stratum) -> float:
    """Return how many duplicates a stratum has, as its sample says."""
    return stratum.size * stratum.duplicates / stratum.decided


def _simulated(strata: Sequence[Stratum], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return simulated numbers of duplicates over some strata."""
    totals = np.zeros(SIMULATIONS)
    for stratum in strata:
        others = stratum.decided - stratum.duplicates
        shares = rng.beta(stratum.duplicates + PRIOR, others + PRIOR, SIMULATIONS)
        totals += stratum.duplicates + rng.binomial(stratum.size - stratum.decided, shares)
    return totals


def _share(value: float | None, simulated: npt.NDArray[np.float64]) -> Share:
    low, high = np.percentile(simulated, PERCENTILES)
    return Share(value, float(low), float(high))
