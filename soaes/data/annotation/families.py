"""Families of documents that share text, and which split each may go to.

Questions about two versions of a law, or about two forms of one contract, ask for the same answer.
So whole families are set apart for dev and test, never single documents. A family is what
near-duplicates connect, however loosely, and documents of one title.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from soaes.data.curation import near_duplicates, ngrams, versions
from soaes.data.curation.settings import DeduplicationSettings

JACCARD = 0.4  # similarity of 5-grams from which two documents are of one family
RECALL = 0.99  # of such pairs
SPLITS = ("train", "dev", "test")
MIN_TITLE = 4  # letters of a title that tells a family
CACHED = 2000  # documents whose n-grams are kept

Family = str  # the smallest id of its documents


def families(documents: Mapping[str, tuple[str, str]]) -> dict[str, Family]:
    """Return the family of each document.

    Args:
        documents: Title and text by id.
    """
    ids = sorted(documents)
    parent = {identifier: identifier for identifier in ids}

    def root(identifier: str) -> str:
        while parent[identifier] != identifier:
            parent[identifier] = parent[parent[identifier]]
            identifier = parent[identifier]
        return identifier

    def join(one: str, other: str) -> None:
        first, second = sorted((root(one), root(other)))
        parent[second] = first

    by_title: dict[str, str] = {}
    for identifier in ids:
        key = versions.title_key(documents[identifier][0])
        if len(key) >= MIN_TITLE:
            join(by_title.setdefault(key, identifier), identifier)

    @lru_cache(maxsize=CACHED)
    def hashes(identifier: str) -> ngrams.Hashes:
        points = ngrams.folded(documents[identifier][1])
        return ngrams.distinct(ngrams.ngram_hashes(points, settings.n))

    settings = DeduplicationSettings(jaccard=JACCARD, recall=RECALL)
    for one, other in _candidates(ids, hashes, settings):
        if root(one) != root(other):
            if ngrams.jaccard(hashes(one), hashes(other)) >= JACCARD:
                join(one, other)
    return {identifier: root(identifier) for identifier in ids}


def _candidates(
    ids: Sequence[str], hashes: object, settings: DeduplicationSettings
) -> Iterable[tuple[str, str]]:
    """Yield pairs of documents that share a band of their signatures, each with its first one."""
    assert callable(hashes)
    texts = [identifier for identifier in ids if len(hashes(identifier))]
    if len(texts) < 2:
        return
    sketches = [hashes(identifier) for identifier in texts]
    signatures = near_duplicates.signatures(sketches, settings.num_hashes)
    keys = near_duplicates.band_keys(signatures, settings.bands)
    seen: set[tuple[str, str]] = set()
    for column in keys.T:
        order = np.argsort(column, kind="stable")
        for before, after in zip(order[:-1], order[1:], strict=True):
            pair = (texts[before], texts[after])
            if column[before] == column[after] and pair not in seen:
                seen.add(pair)
                yield pair


def assign(
    tasks_of: Mapping[Family, Counter[str]],
    dev_share: float,
    test_share: float,
    seed: int,
    fixed: Mapping[Family, str] | None = None,
) -> dict[Family, str]:
    """Return the split of each family, so that each task is divided by the shares.

    Large families are placed first, each where it leaves the counts of all tasks nearest to their
    shares. No split stays empty where there are three families.

    Args:
        tasks_of: Items of each family by task.
        dev_share: Share of each task in dev, and `test_share` in test; train has the rest.
        test_share: See above.
        seed: Decides between equals.
        fixed: Families whose split is known.
    """
    shares = {"train": 1 - dev_share - test_share, "dev": dev_share, "test": test_share}
    totals: Counter[str] = Counter()
    for tasks in tasks_of.values():
        totals.update(tasks)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    split_of = {family: split for family, split in (fixed or {}).items() if family in tasks_of}
    for family, split in split_of.items():
        counts[split].update(tasks_of[family])

    def gain(tasks: Counter[str], split: str) -> float:
        """How much nearer to its shares a split comes with these items, over all tasks."""
        total = 0.0
        for task, count in tasks.items():
            target = shares[split] * totals[task]
            missing = target - counts[split][task]
            total += (missing**2 - (missing - count) ** 2) / (target * totals[task])
        return total

    free = [family for family in tasks_of if family not in split_of]
    free.sort(key=lambda family: (-tasks_of[family].total(), _order(family, seed)))
    for family in free:
        split = max(SPLITS, key=lambda name: gain(tasks_of[family], name))
        split_of[family] = split
        counts[split].update(tasks_of[family])
    for split in ("test", "dev"):
        trained = [family for family in free if split_of[family] == "train"]
        if split not in split_of.values() and len(trained) > 1:
            split_of[trained[-1]] = split  # of few families the smallest
    return split_of


def _order(family: Family, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{family}".encode()).digest()
