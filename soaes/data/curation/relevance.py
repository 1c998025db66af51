"""Relevance of texts to a domain: a calibrated linear scorer over hashed character n-grams.

A passage is a vector of the logarithms of its n-gram counts, of unit length, hashed to `FEATURES`
indices; behind them stands, for each of an expert's topics, how often its terms occur, weighted
down. A logistic regression, fitted by soaes.data.curation.relevance_training, gives the probability
that the passage is relevant. A document scores the mean of its best passages.

Without labels, a topic list gives the density of its terms instead: an order, no probability.

Knows texts and numbers; of files, those of a scorer alone. Scoring needs numpy and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soaes.data.curation.ngrams import folded, ngram_hashes
from soaes.data.curation.passages import passages
from soaes.pipeline.store import read_json, write_json

Vector = npt.NDArray[np.float64]
Topics = Mapping[str, Iterable[str]]  # topic -> its terms

NGRAMS = (2, 3, 4)  # characters
FEATURES = 1 << 18
TOPIC_WEIGHT = 0.3  # of the logarithm of a topic's count, beside n-grams of unit length
BEST_PASSAGES = 3  # a document's score is their mean
SCORER = "scorer"  # folder of a scorer in that of the stage that made it
WEIGHTS, SETTINGS = "weights.npy", "scorer.json"  # the files of a scorer
# A topic's term a hundred characters is as dense as a text about the domain gets.
FULL_DENSITY = 0.01


class Features:
    """Turns a passage into its features.

    Args:
        topics: Topic -> its terms; the order of the topics is that of their features.
    """

    def __init__(self, topics: Topics) -> None:
        self.topics = {topic: list(terms) for topic, terms in topics.items()}
        self._patterns = [_pattern(terms) for terms in topics.values()]
        self.size = FEATURES + len(self._patterns)

    def __call__(self, text: str) -> tuple[npt.NDArray[np.int64], Vector]:
        """Return the indices of a passage's features that are not 0, and their values."""
        points = folded(text)
        hashes = np.concatenate([ngram_hashes(points, n) for n in NGRAMS])
        indices, counts = np.unique(hashes & np.uint64(FEATURES - 1), return_counts=True)
        values = np.log1p(counts)
        length = float(np.sqrt(values @ values)) or 1.0
        num_terms = np.array([len(pattern.findall(text)) for pattern in self._patterns], float)
        topics = np.flatnonzero(num_terms)
        topic_values = TOPIC_WEIGHT * np.log1p(num_terms[topics])
        return (
            np.concatenate([indices.astype(np.int64), FEATURES + topics]),
            np.concatenate([values / length, topic_values]),
        )


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

    def probability(self, text: str) -> float:
        """Return the calibrated probability that a passage is relevant."""
        indices, values = self.features(text)
        decision = float(self.weights[indices] @ values) + self.intercept
        return float(sigmoid(self.slope * decision + self.offset))

    def document(self, text: str) -> float:
        """Return the score of a document: the mean of its best passages, 0 without any."""
        return document_score(text, self.probability)

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


def document_score(text: str, score: Callable[[str], float]) -> float:
    """Return the mean of the best scores of a document's passages; 0 without any."""
    scores = sorted((score(text[start:end]) for start, end in passages(text)), reverse=True)
    best = scores[:BEST_PASSAGES]
    return sum(best) / len(best) if best else 0.0


class TopicScorer:
    """Scores by the density of an expert's terms: what there is without labels.

    Args:
        topics: An expert's.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = {topic: list(terms) for topic, terms in topics.items()}
        self._pattern = _pattern({term for terms in topics.values() for term in terms})

    def density(self, text: str) -> float:
        """Return the terms of a passage over its letters, over `FULL_DENSITY`; 1 at most."""
        num_terms = len(self._pattern.findall(text))
        return min(1.0, num_terms / (FULL_DENSITY * max(1, len(folded(text)))))

    def document(self, text: str) -> float:
        """Return the score of a document: the mean of its densest passages, 0 without any."""
        return document_score(text, self.density)

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


def sigmoid(values: Vector | float) -> Vector:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-np.asarray(values, float)))


def _pattern(terms: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds terms; of those that begin alike, the longest."""
    longest_first = sorted(terms, key=lambda term: (-len(term), term))
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
