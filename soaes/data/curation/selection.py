"""Choose the documents that a token budget holds.

The budget is filled by credibility (tier), then by band of relevance, then by importance, with a
cap for every origin. Documents of an expert come first and need no score. Knows numbers, no texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from soaes.data.curation.settings import SelectionSettings

EXPERT = "expert"  # the origin whose documents no scorer judges
LOWEST_TIER = 5
BANDS = (0.9, 0.7, 0.5, 0.3, 0.1)  # a document belongs to the first that it reaches


class Candidate(NamedTuple):
    """What is decided by of a document."""

    tier: int
    relevance: float | None  # None where nothing was scored
    importance: float
    tokens: int
    origin: str


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


def band_of(relevance: float | None) -> int:
    """Return the number of a document's band, 0 for the most relevant."""
    if relevance is None:
        return len(BANDS)
    return next((n for n, least in enumerate(BANDS) if relevance >= least), len(BANDS))


def reasons(candidates: Sequence[Candidate], settings: SelectionSettings) -> list[str]:
    """Return why each candidate is dropped; "" for those that are kept.

    A document that is too long for what is left of the budget is dropped and the next one tried.
    """
    found = [_reason(candidate, settings) for candidate in candidates]
    if settings.budget is None:
        return found
    left = settings.budget
    limit = settings.budget * settings.max_origin_share
    taken: Counter[str] = Counter()
    for index in sorted(range(len(candidates)), key=lambda index: _rank(candidates[index], index)):
        candidate = candidates[index]
        if found[index]:
            continue
        is_expert = candidate.origin == EXPERT
        if candidate.tokens > left:
            found[index] = "beyond the token budget"
        elif not is_expert and taken[candidate.origin] + candidate.tokens > limit:
            found[index] = "beyond the share of its origin"
        else:
            taken[candidate.origin] += candidate.tokens
            left -= candidate.tokens
    return found


def frontier(
    candidates: Iterable[Candidate], judged: Sequence[Judged], thresholds: Sequence[float]
) -> list[FrontierRow]:
    """Return what each threshold of relevance would keep.

    Args:
        candidates: The documents; those of an expert are kept by every threshold.
        judged: Labelled passages.
        thresholds: Of a document's relevance.
    """
    scored = [
        (1.0 if candidate.origin == EXPERT else candidate.relevance or 0.0, candidate.tokens)
        for candidate in candidates
    ]
    relevant_weight = sum(passage.weight for passage in judged if passage.relevant)
    rows = []
    for threshold in thresholds:
        kept = [tokens for score, tokens in scored if score >= threshold]
        passages = [passage for passage in judged if passage.score >= threshold]
        weight = sum(passage.weight for passage in passages)
        hits = sum(passage.weight for passage in passages if passage.relevant)
        precision = hits / weight if weight else None
        recall = hits / relevant_weight if relevant_weight else None
        rows.append(FrontierRow(threshold, len(kept), sum(kept), precision, recall))
    return rows


def _reason(candidate: Candidate, settings: SelectionSettings) -> str:
    """Return why a document is dropped whatever the budget is, or ""."""
    if candidate.origin == EXPERT:
        return ""
    if candidate.tier > settings.lowest_tier:
        return "tier of the source"
    if settings.threshold is not None and (candidate.relevance or 0.0) < settings.threshold:
        return "below the relevance threshold"
    return ""


def _rank(candidate: Candidate, index: int) -> tuple[bool, int, int, float, int]:
    """Return the order in which the budget is filled; the order of reading decides ties."""
    band = band_of(candidate.relevance)
    is_expert = candidate.origin == EXPERT
    return not is_expert, candidate.tier, band, -candidate.importance, index
