"""Choose the documents that a token budget holds.

The budget is filled by credibility (tier), then by band of relevance, then by importance, with a
cap for every origin. Documents of an expert come first and need no score. Knows numbers, no texts.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from soaes.data.curation.settings import SelectionSettings

EXPERT = "expert"  # the origin whose documents no scorer judges
LOWEST_TIER = 5
BANDS = (0.9, 0.7, 0.5, 0.3, 0.1)  # a document belongs to the first that it reaches


class Candidates:
    """What is decided by of documents, in 22 bytes each, in the order in which they were read."""

    def __init__(self) -> None:
        self._tiers = array("b")
        self._relevances = array("f")
        self._importances = array("f")
        self._tokens = array("q")
        self._origins = array("l")
        self.origins: dict[str, int] = {}  # origin -> its number

    def add(
        self, tier: int, relevance: float | None, importance: float, tokens: int, origin: str
    ) -> None:
        """Add a document.

        Args:
            tier: Of its source, 1 to 5.
            relevance: None where nothing was scored.
            importance: In [0, 1].
            tokens: Estimated.
            origin: First folder below corpus/.
        """
        self._tiers.append(tier)
        self._relevances.append(math.nan if relevance is None else relevance)
        self._importances.append(importance)
        self._tokens.append(tokens)
        self._origins.append(self.origins.setdefault(origin, len(self.origins)))

    def __len__(self) -> int:
        return len(self._tiers)

    @property
    def tiers(self) -> npt.NDArray[np.int8]:
        """Return the tiers of the sources."""
        return np.array(self._tiers, np.int8)

    @property
    def relevances(self) -> npt.NDArray[np.float32]:
        """Return the relevances; NaN where nothing was scored."""
        return np.array(self._relevances, np.float32)

    @property
    def importances(self) -> npt.NDArray[np.float32]:
        """Return the importances."""
        return np.array(self._importances, np.float32)

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """Return the estimated tokens."""
        return np.array(self._tokens, np.int64)

    @property
    def origin_numbers(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the origins."""
        return np.array(self._origins, np.int64)

    @property
    def by_expert(self) -> npt.NDArray[np.bool_]:
        """Return which documents an expert chose."""
        return self.origin_numbers == self.origins.get(EXPERT, -1)


@dataclass(frozen=True)
class Judged:
    """A labelled passage, and the score of its document by a scorer that has not seen either.

    Attributes:
        score: The document's.
        relevant: The label.
        weight: The inverse of the probability with which the passage was drawn.
    """

    score: float
    relevant: bool
    weight: float


class FrontierRow(NamedTuple):
    """What a threshold keeps."""

    threshold: float
    documents: int
    tokens: int
    precision: float | None  # share of relevant passages among those kept; None where none is
    recall: float | None  # share of the relevant passages that is kept; None without labels


def tier_of(origin: str, url: str, tiers: Mapping[str, int]) -> int:
    """Return the tier of a source: by its origin, else by the longest end of its host.

    Args:
        origin: First folder below corpus/.
        url: "" where it is unknown.
        tiers: Origin or host -> tier.
    """
    if origin == EXPERT:
        return 1
    if origin in tiers:
        return tiers[origin]
    labels = (urlsplit(url).hostname or "").split(".")
    hosts = [".".join(labels[start:]) for start in range(len(labels))]
    return next((tiers[host] for host in hosts if host in tiers), LOWEST_TIER)


def bands_of(relevances: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the numbers of documents' bands: 0 for the most relevant, the last without a score."""
    reached = relevances[:, None] >= np.array(BANDS, np.float32)
    return np.where(reached.any(axis=1), reached.argmax(axis=1), len(BANDS))


def reasons(candidates: Candidates, settings: SelectionSettings) -> list[str]:
    """Return why each candidate is dropped; "" for those that are kept.

    A document that is too long for what is left of the budget is dropped and the next one tried.
    """
    by_expert = candidates.by_expert
    found = [""] * len(candidates)  # 8 bytes each: few different texts
    too_low = candidates.tiers > settings.lowest_tier
    for index in np.flatnonzero(too_low & ~by_expert):
        found[index] = "tier of the source"
    if settings.threshold is not None:
        reached = candidates.relevances >= np.float32(settings.threshold)
        for index in np.flatnonzero(~reached & ~too_low & ~by_expert):
            found[index] = "below the relevance threshold"
    if settings.budget is not None:
        _fill(candidates, settings, settings.budget, found)
    return found


def frontier(
    candidates: Candidates, judged: Sequence[Judged], thresholds: Sequence[float]
) -> list[FrontierRow]:
    """Return what each threshold of relevance would keep.

    Args:
        candidates: The documents; those of an expert are kept by every threshold.
        judged: Labelled passages.
        thresholds: Of a document's relevance.
    """
    tokens = candidates.tokens
    scores = np.where(candidates.by_expert, np.float32(1), candidates.relevances)
    relevant_weight = sum(passage.weight for passage in judged if passage.relevant)
    rows = []
    for threshold in thresholds:
        kept = scores >= np.float32(threshold)
        passages = [passage for passage in judged if passage.score >= threshold]
        weight = sum(passage.weight for passage in passages)
        hits = sum(passage.weight for passage in passages if passage.relevant)
        precision = hits / weight if weight else None
        recall = hits / relevant_weight if relevant_weight else None
        num_tokens = int(tokens[kept].sum())
        rows.append(FrontierRow(threshold, int(kept.sum()), num_tokens, precision, recall))
    return rows


def _fill(
    candidates: Candidates, settings: SelectionSettings, budget: int, found: list[str]
) -> None:
    """Fill the budget, and say of the documents that are left over why they are."""
    by_expert, tokens = candidates.by_expert, candidates.tokens
    origins = candidates.origin_numbers
    # The last key decides first; documents that are alike stay in the order of reading.
    bands = bands_of(candidates.relevances)
    order = np.lexsort((-candidates.importances, bands, candidates.tiers, ~by_expert))
    limit = budget * settings.max_origin_share
    left = budget
    taken = [0] * len(candidates.origins)
    for index in order:
        size, origin = int(tokens[index]), int(origins[index])
        if found[index]:
            continue
        if size > left:
            found[index] = "beyond the token budget"
        elif not by_expert[index] and taken[origin] + size > limit:
            found[index] = "beyond the share of its origin"
        else:
            taken[origin] += size
            left -= size
