"""Relevance of texts to a domain: a calibrated linear scorer over hashed character n-grams.

A passage is a vector of the logarithms of its n-gram counts, of unit length, hashed to `FEATURES`
indices; behind them stands, for each of an expert's topics, how often its terms occur, weighted
down. A logistic regression, fitted by soaes.data.curation.relevance_training, gives the probability
that the passage is relevant. A document scores the mean of its best passages.

Without labels, a topic list gives the density of its terms instead: an order, no probability.

Knows texts and numbers; of files, those of a scorer alone. Scoring needs numpy and nothing else.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from soaes.data.curation.ngrams import folded, folded_with_offsets, ngram_hashes
from soaes.data.curation.passages import Passage, passages
from soaes.pipeline.store import read_json, write_json

Vector = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Topics = Mapping[str, Iterable[str]]  # topic -> its terms

NGRAMS = (2, 3, 4)  # characters
FEATURES = 1 << 18
TOPIC_WEIGHT = 0.15  # of the logarithm of a topic's count, beside n-grams of unit length
BLOCK = 256  # passages of a document that are scored at once
BEST_PASSAGES = 3  # a document's score is their mean
SCORER = "scorer"  # folder of a scorer in that of the stage that made it
WEIGHTS, SETTINGS = "weights.npy", "scorer.json"  # the files of a scorer
# A topic's term a hundred characters is as dense as a text about the domain gets.
FULL_DENSITY = 0.01


class Entries(NamedTuple):
    """The features of passages that are not 0, one an entry."""

    passages: Indices  # number of the passage
    features: Indices
    values: Vector


class Features:
    """Turns passages into their features.

    Args:
        topics: Topic -> its terms; the order of the topics is that of their features.
    """

    def __init__(self, topics: Topics) -> None:
        self.topics = {topic: list(terms) for topic, terms in topics.items()}
        self._patterns = [term_pattern(terms) for terms in self.topics.values()]
        self.size = FEATURES + len(self._patterns)

    def __call__(self, text: str, spans: Sequence[Passage]) -> Entries:
        """Return the features of the passages of a text.

        Args:
            text: The text.
            spans: Its passages, in order and without overlap.
        """
        parts = [self._ngrams(text, spans), self._topics(text, spans)]
        return Entries(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _ngrams(self, text: str, spans: Sequence[Passage]) -> Entries:
        """Return the logarithms of n-gram counts, each passage of unit length."""
        points, offsets = folded_with_offsets(text)
        starts, ends = np.searchsorted(offsets, np.array(spans).T)
        keys = []
        for n in NGRAMS:
            hashes = ngram_hashes(points, n)
            places = np.arange(len(hashes))
            owners = np.searchsorted(starts, places, side="right") - 1
            inside = (owners >= 0) & (places + n <= ends[owners])
            indices = (hashes[inside] & np.uint64(FEATURES - 1)).astype(np.int64)
            keys.append(owners[inside] * FEATURES + indices)
        different, counts = np.unique(np.concatenate(keys), return_counts=True)
        owners, indices = np.divmod(different, FEATURES)
        values = np.log1p(counts)
        lengths = np.sqrt(np.bincount(owners, values**2, minlength=len(spans)))
        return Entries(owners, indices, values / lengths[owners])

    def _topics(self, text: str, spans: Sequence[Passage]) -> Entries:
        """Return how often the terms of each topic occur, on a logarithmic scale."""
        counts = np.zeros((len(spans), len(self._patterns)))
        starts = [span.start for span in spans]
        lowered = text.lower()
        for number, terms in enumerate(self.topics.values()):
            if not any(term.lower() in lowered for term in terms):  # which takes no time
                continue
            for match in self._patterns[number].finditer(text):
                owner = bisect_right(starts, match.start()) - 1
                if owner >= 0 and match.end() <= spans[owner].end:
                    counts[owner, number] += 1
        owners, topics = np.nonzero(counts)
        values = TOPIC_WEIGHT * np.log1p(counts[owners, topics])
        return Entries(owners, FEATURES + topics, values)


@dataclass(frozen=True)
class LinearScorer:
    """A fitted scorer.

    Attributes:
        features: What the weights belong to.
        weights: One for each feature.
        intercept: Added to the decision value.
        slope, offset: Of the calibration: probability = sigmoid(slope * decision + offset).
    """

    features: Features
    weights: Vector
    intercept: float
    slope: float = 1.0
    offset: float = 0.0

    def probabilities(self, text: str) -> Vector:
        """Return the calibrated probability that each passage of a text is relevant.

        Memory is that of `BLOCK` passages, however long the text is.
        """
        spans = list(passages(text))
        blocks = [spans[start : start + BLOCK] for start in range(0, len(spans), BLOCK)]
        return np.concatenate([np.zeros(0), *(self._block(text, block) for block in blocks)])

    def document(self, text: str) -> float:
        """Return the score of a document: the mean of its best passages, 0 without any."""
        return document_score(self.probabilities(text))

    def _block(self, text: str, spans: Sequence[Passage]) -> Vector:
        """Return the probabilities of consecutive passages."""
        first, last = spans[0].start, spans[-1].end
        shifted = [Passage(start - first, end - first) for start, end in spans]
        owners, indices, values = self.features(text[first:last], shifted)
        sums = np.bincount(owners, self.weights[indices] * values, minlength=len(spans))
        return sigmoid(self.slope * (sums + self.intercept) + self.offset)

    def save(self, folder: Path) -> None:
        """Write the scorer to a folder, which `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / WEIGHTS, self.weights)
        settings = {
            "by": "labels",
            "topics": self.features.topics,
            "intercept": self.intercept,
            "slope": self.slope,
            "offset": self.offset,
        }
        write_json(folder / SETTINGS, settings)


def document_score(scores: Iterable[float]) -> float:
    """Return the mean of the best scores of a document's passages; 0 without any."""
    best = heapq.nlargest(BEST_PASSAGES, map(float, scores))
    return sum(best) / len(best) if best else 0.0


class TopicScorer:
    """Scores by the density of an expert's terms: what there is without labels.

    Args:
        topics: An expert's.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = {topic: list(terms) for topic, terms in topics.items()}
        self._pattern = term_pattern({term for terms in topics.values() for term in terms})

    def density(self, text: str) -> float:
        """Return the terms of a passage over its letters, over `FULL_DENSITY`; 1 at most."""
        num_terms = len(self._pattern.findall(text))
        return min(1.0, num_terms / (FULL_DENSITY * max(1, len(folded(text)))))

    def document(self, text: str) -> float:
        """Return the score of a document: the mean of its densest passages, 0 without any."""
        return document_score(self.density(text[start:end]) for start, end in passages(text))

    def save(self, folder: Path) -> None:
        """Write the scorer to a folder, which `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, {"by": "topics", "topics": self._topics})


def load(folder: Path) -> LinearScorer | TopicScorer:
    """Read the scorer that was saved to a folder."""
    settings = read_json(folder / SETTINGS)
    if settings["by"] == "topics":
        return TopicScorer(settings["topics"])
    calibration = {name: settings[name] for name in ("intercept", "slope", "offset")}
    return LinearScorer(Features(settings["topics"]), np.load(folder / WEIGHTS), **calibration)


def sigmoid(values: npt.ArrayLike) -> Vector:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-np.asarray(values, float)))


def term_pattern(terms: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds terms in any case; of those that begin alike, the longest."""
    longest_first = sorted(terms, key=lambda term: (-len(term), term))
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
