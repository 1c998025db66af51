"""Draw passages for people to label: a probability sample, a few of each document.

Relevant passages are rare, so that most of a plain sample would show nothing. Each passage is of a
kind: how many of an expert's terms it has and, where there is a scorer, how it judges it. A stratum
is the passages of one kind and origin. All kinds are expected equally often; within a kind, a
stratum's number grows with the root of its size; and that of a document is limited. Whoever weights
a label by the inverse of its probability (Horvitz and Thompson 1952) gets totals of the whole
corpus without bias.

The draw is systematic (Madow 1949): the passages stand in a row, each as long as its probability,
and are taken where the teeth of a comb fall on them, which are 1 apart and begin at random. So each
is drawn with its probability exactly, a document whose probabilities sum to its limit gives no
more than that, and an origin, whose documents stand together in random order, gives its expected
number but for one.

Knows documents, and no files.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from soaes.data.curation.document import CuratedDocument
from soaes.data.curation.passages import Passage
from soaes.data.curation.relevance import LinearScorer, Topics, term_pattern
from soaes.data.curation.selection import BANDS

Name = TypeVar("Name", str, tuple[str, str])
Vector = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

STARTS = 1 << 32  # of a comb: few enough that teeth are exact
BISECTIONS = 60  # halvings of an interval: more than a float has bits
NUM_TERMS = ("none", "one", "several")  # different terms of the topics in a passage


class Kinds:
    """Names the kinds of passages: `several` and, by a scorer, `several/0.9`.

    Args:
        topics: An expert's; without any, terms tell no kinds apart.
        scorer: One that was fitted to labels; None where there is none yet.
    """

    def __init__(self, topics: Topics, scorer: LinearScorer | None) -> None:
        terms = {term for terms in topics.values() for term in terms}
        self._pattern = term_pattern(terms) if terms else None
        self._scorer = scorer

    def __call__(self, document: CuratedDocument, spans: Sequence[Passage]) -> list[str]:
        """Return the kind of each passage of a document; "" where nothing tells them apart."""
        text = document["text"]
        parts: list[list[str]] = [[] for _ in spans]
        if self._pattern:
            for index, (start, end) in enumerate(spans):
                terms = {term.lower() for term in self._pattern.findall(text, start, end)}
                parts[index].append(NUM_TERMS[min(len(terms), 2)])
        if self._scorer:
            for index, score in enumerate(self._scorer.probabilities(text)):
                band = next((lowest for lowest in BANDS if score >= lowest), 0)
                parts[index].append(f"{band}")
        return ["/".join(names) for names in parts]


class Draw(NamedTuple):
    """A passage that was drawn."""

    document: int  # its number, in the order in which documents were added
    passage: int  # its number within the document
    stratum: str
    size: int  # passages of the stratum
    probability: float  # with which it was drawn


class Population:
    """All passages that may be drawn, in 8 bytes each."""

    def __init__(self) -> None:
        self._documents = array("i")  # of each passage
        self._strata = array("i")
        self._origins = array("i")  # of each document
        self._origin_numbers: dict[str, int] = {}
        self._stratum_numbers: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._strata)

    def add(self, origin: str, kinds: Iterable[str]) -> None:
        """Add a document.

        Args:
            origin: What it has in common with its neighbours in the row.
            kinds: The kind of each of its passages, in order; "" where they have none.
        """
        document = len(self._origins)
        self._origins.append(_number(self._origin_numbers, origin))
        for kind in kinds:
            self._documents.append(document)
            self._strata.append(_number(self._stratum_numbers, (origin, kind)))

    def draw(self, number: int, max_per_document: int, seed: int) -> list[Draw]:
        """Draw passages.

        Args:
            number: How many; fewer where the documents do not have so many.
            max_per_document: Most passages of one document.
            seed: Decides which.

        Returns:
            The passages, in the order of documents and of their place.
        """
        documents = np.array(self._documents, np.int64)
        strata = np.array(self._strata, np.int64)
        kinds: dict[str, int] = {}
        kinds_of_strata = [_number(kinds, kind) for _, kind in self._stratum_numbers]
        chances = probabilities(strata, kinds_of_strata, documents, number, max_per_document)
        rng = np.random.default_rng(seed)
        shuffled = rng.random(len(self._origins))
        ranks = np.argsort(np.lexsort((shuffled, np.array(self._origins, np.int64))))
        row = np.argsort(ranks[documents], kind="stable")
        start = int(rng.integers(STARTS)) / STARTS
        drawn = np.sort(row[systematic(chances[row], start)])
        names = self._names()
        sizes = np.bincount(strata, minlength=len(names))
        firsts = np.searchsorted(documents, documents[drawn])
        return [
            Draw(
                int(documents[index]),
                int(index - first),
                names[strata[index]],
                int(sizes[strata[index]]),
                float(chances[index]),
            )
            for index, first in zip(drawn, firsts, strict=True)
        ]

    def sizes(self) -> dict[str, int]:
        """Return how many passages each stratum has, by name in alphabetical order."""
        counts = np.bincount(np.array(self._strata, np.int64), minlength=len(self._stratum_numbers))
        return dict(sorted(zip(self._names(), map(int, counts), strict=True)))

    def _names(self) -> list[str]:
        """Return the names of the strata: `laws/several`."""
        parts = (filter(None, stratum) for stratum in self._stratum_numbers)
        return ["/".join(names) or "all" for names in parts]


def probabilities(
    strata: Indices,
    kinds_of_strata: Sequence[int],
    documents: Indices,
    number: int,
    max_per_document: int,
) -> Vector:
    """Return the probability with which each passage is drawn.

    It is min(1, c / (sqrt(size of the stratum) * sum of these roots over the kind)), scaled down in
    a document where the sum would exceed the limit, with c such that all sum to the number that is
    wanted.

    Args:
        strata: The number of each passage's stratum.
        kinds_of_strata: The number of each stratum's kind.
        documents: The number of its document.
        number: Passages that are wanted.
        max_per_document: Most passages of one document.
    """
    if not len(strata):
        return np.zeros(0)
    roots = np.sqrt(np.bincount(strata, minlength=len(kinds_of_strata)))
    kinds = np.array(kinds_of_strata, np.int64)
    rates = (1 / (roots * np.bincount(kinds, roots)[kinds]))[strata]
    available = int(np.minimum(np.bincount(documents), max_per_document).sum())
    wanted = min(number, available)
    low, high = 0.0, 2 / float(rates.min())  # at which all are drawn that may be
    for _ in range(BISECTIONS if wanted < available else 0):
        middle = (low + high) / 2
        if _limited(middle * rates, documents, max_per_document).sum() < wanted:
            low = middle
        else:
            high = middle
    return _limited(high * rates, documents, max_per_document)


def systematic(chances: Vector, start: float) -> Indices:
    """Return which elements of a row a systematic draw takes, in the order of the row.

    Args:
        chances: Their probabilities, in [0, 1], which sum to a whole number.
        start: Where the first tooth of the comb falls, in [0, 1).
    """
    ends = np.cumsum(chances)
    if not len(ends):
        return np.zeros(0, np.int64)
    number = round(float(ends[-1]))
    ends *= number / ends[-1]  # what rounding left over
    teeth = start + np.arange(number)
    return np.unique(np.searchsorted(ends, teeth, side="right"))


def _limited(rates: Vector, documents: Indices, max_per_document: int) -> Vector:
    """Return rates as probabilities that sum in no document to more than its limit."""
    chances = np.minimum(rates, 1.0)
    sums = np.bincount(documents, chances)
    scales = np.minimum(1.0, max_per_document / np.maximum(sums, max_per_document))
    return chances * scales[documents]


def _number(numbers: dict[Name, int], name: Name) -> int:
    return numbers.setdefault(name, len(numbers))
