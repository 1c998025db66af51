"""Relevance of documents to a domain: a calibrated linear scorer over hashed character n-grams.

A passage is a vector of the logarithms of its n-gram counts, of unit length, hashed to `FEATURES`
indices; behind them stands, for each of an expert's topics, how often its terms occur, weighted
down. A logistic regression learns from labels which passages are relevant. Its decision value is
calibrated on families of documents that it has not seen (Platt scaling, weighted by the inverse
probability with which a passage was drawn), so that a score is a probability in the corpus from
which the labels come. A document scores the mean of its best passages.

Without labels, a topic list gives the density of its terms instead: an order, no probability.

Knows texts, labels and numbers; of files, those of a scorer alone.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from soaes.data.curation.document import CuratedDocument
from soaes.data.curation.labels import Label, LabelledPassage
from soaes.data.curation.ngrams import folded, ngram_hashes
from soaes.data.curation.passages import passages
from soaes.pipeline.store import read_json, write_json

Vector = npt.NDArray[np.float64]
Topics = Mapping[str, Iterable[str]]  # topic -> its terms

NGRAMS = (2, 3, 4)  # characters
FEATURES = 1 << 18
TOPIC_WEIGHT = 0.3  # of the logarithm of a topic's count, beside n-grams of unit length
BEST_PASSAGES = 3  # a document's score is their mean
INVERSE_PENALTY = 30.0  # C of the logistic regression
MAX_ITERATIONS = 500
SMALLEST_EIGENVALUE = 1e-9  # passages that others span, such as equal ones, add no coordinate
FOLDS = 10  # of families, for calibration and for what is said of the labels' own documents
MIN_LABELS = 20  # of either class
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

    def matrix(self, texts: Sequence[str]) -> csr_matrix:
        """Return the features of passages, a row each."""
        rows = [self(text) for text in texts]
        starts = np.cumsum([0, *(len(indices) for indices, _ in rows)])
        indices = np.concatenate([indices for indices, _ in rows])
        values = np.concatenate([values for _, values in rows])
        return csr_matrix((values, indices, starts), shape=(len(rows), self.size))


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


@dataclass(frozen=True)
class Fitted:
    """A scorer, and what is known of it from documents that it has not seen.

    Attributes:
        scorer: Fitted to all labels.
        by_fold: Scorers that have not seen the families of one fold each, calibrated as `scorer`.
        auc: Area under the ROC curve, over all labelled passages, of scorers that have not seen a
            passage's family; in the corpus from which the labels come.
    """

    scorer: LinearScorer
    by_fold: Sequence[LinearScorer]
    auc: float


def fold_of(family: str) -> int:
    """Return the fold of a family: the same on every machine, whatever other families there are."""
    return zlib.crc32(family.encode()) % FOLDS


def fit(labelled: Sequence[LabelledPassage], topics: Topics) -> Fitted:
    """Fit a scorer to labelled passages and calibrate it on families that it has not seen.

    Args:
        labelled: Passages with their labels.
        topics: Topic -> its terms.

    Raises:
        ValueError: There are too few labels of either class, or all are of one family.
    """
    relevant = np.array([passage.label.relevant for passage in labelled], bool)
    _check_enough(relevant)
    features = Features(topics)
    rows = Rows(features, features.matrix([passage.text for passage in labelled]), relevant)
    folds = np.array([fold_of(passage.label.family) for passage in labelled])
    weights = np.array([1 / passage.label.probability for passage in labelled])
    by_fold = []
    decisions = np.zeros(len(labelled))
    for fold in range(FOLDS):
        held_out = folds == fold
        scorer = rows.fit(~held_out)
        decisions[held_out] = rows.decisions(scorer)[held_out]
        by_fold.append(scorer)
    slope, offset = calibration(decisions, relevant, weights)

    def calibrated(scorer: LinearScorer) -> LinearScorer:
        return replace(scorer, slope=slope, offset=offset)

    return Fitted(
        scorer=calibrated(rows.fit(np.ones(len(labelled), bool))),
        by_fold=[calibrated(scorer) for scorer in by_fold],
        auc=float(roc_auc_score(relevant, decisions, sample_weight=weights)),
    )


class Rows:
    """Labelled passages in the coordinates of the space that they span.

    A logistic regression with a quadratic penalty has its weights in that space, so that fitting
    there is exact, and takes as many coordinates as there are passages instead of `FEATURES`.
    Memory is 8 B for each pair of passages.

    Args:
        features: What the columns of the matrix are.
        matrix: Features of the passages, a row each.
        relevant: Their labels.
    """

    def __init__(
        self, features: Features, matrix: csr_matrix, relevant: npt.NDArray[np.bool_]
    ) -> None:
        self.relevant = relevant
        self._features = features
        self._matrix = matrix
        values, vectors = np.linalg.eigh((matrix @ matrix.T).toarray())
        spanned = values > SMALLEST_EIGENVALUE
        lengths = np.sqrt(values[spanned])
        self._coordinates = vectors[:, spanned] * lengths
        self._back = vectors[:, spanned] / lengths

    def fit(self, chosen: npt.NDArray[np.bool_]) -> LinearScorer:
        """Fit a scorer, not calibrated, to the chosen passages.

        Raises:
            ValueError: All of them are of one class.
        """
        relevant = self.relevant[chosen]
        if relevant.all() or not relevant.any():
            raise ValueError(
                "labels: without one group of families all labels are of one class; label "
                "passages of more families"
            )
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS)
        model.fit(self._coordinates[chosen], relevant)
        weights = self._matrix.T @ (self._back @ model.coef_[0])
        return LinearScorer(self._features, weights, float(model.intercept_[0]))

    def decisions(self, scorer: LinearScorer) -> Vector:
        """Return the decision value of every passage, before calibration."""
        return self._matrix @ scorer.weights + scorer.intercept


def calibration(
    decisions: Vector, relevant: npt.NDArray[np.bool_], weights: Vector
) -> tuple[float, float]:
    """Return slope and offset of Platt scaling: a weighted logistic regression on one number."""
    model = LogisticRegression(C=np.inf, max_iter=MAX_ITERATIONS)
    model.fit(decisions[:, None], relevant, sample_weight=weights / weights.mean())
    return float(model.coef_[0, 0]), float(model.intercept_[0])


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


def judged(
    fitted: Fitted | None,
    labelled: Iterable[LabelledPassage],
    documents: Iterable[CuratedDocument],
) -> Iterator[dict[str, Any]]:
    """Yield each labelled passage with the score of its document by a scorer that has seen neither.

    Args:
        fitted: None without labels; there is nothing then.
        labelled: The passages that it was fitted to.
        documents: Those that hold them.

    Yields:
        score of the document, whether the passage is relevant, and the weight by which it counts.
    """
    if fitted is None:
        return
    by_document: dict[str, list[Label]] = defaultdict(list)
    for passage in labelled:
        by_document[passage.document].append(passage.label)
    for document in documents:
        scores: dict[int, float] = {}
        for label in by_document.get(document["id"], ()):
            fold = fold_of(label.family)
            if fold not in scores:
                scores[fold] = round(fitted.by_fold[fold].document(document["text"]), 6)
            yield {
                "score": scores[fold],
                "relevant": label.relevant,
                "weight": 1 / label.probability,
            }


def sigmoid(values: Vector | float) -> Vector:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-np.asarray(values, float)))


def _pattern(terms: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds terms; of those that begin alike, the longest."""
    longest_first = sorted(terms, key=lambda term: (-len(term), term))
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


def _check_enough(relevant: npt.NDArray[np.bool_]) -> None:
    num_relevant = int(relevant.sum())
    fewest = min(num_relevant, len(relevant) - num_relevant)
    if fewest < MIN_LABELS:
        raise ValueError(
            f"labels: {num_relevant} relevant and {len(relevant) - num_relevant} other passages "
            f"were found in the documents; a scorer needs {MIN_LABELS} of each: label more, check "
            "that sources are written as in the data folder, or set labels to null and give topics"
        )
