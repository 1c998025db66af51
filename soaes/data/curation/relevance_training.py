"""Fit the relevance scorer to labelled passages (soaes.data.curation.relevance has the model).

The logistic regression is calibrated on families of documents that it has not seen, by Platt
scaling weighted by the inverse probability with which a passage was drawn: scores are probabilities
in the corpus from which the labels come. Knows passages, labels and numbers.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from soaes.data.curation.document import CuratedDocument
from soaes.data.curation.labels import Label, LabelledPassage
from soaes.data.curation.passages import Passage
from soaes.data.curation.relevance import Features, LinearScorer, Topics, Vector

INVERSE_PENALTY = 30.0  # C of the logistic regression
MAX_ITERATIONS = 500
SMALLEST_EIGENVALUE = 1e-9  # passages that others span, such as equal ones, add no coordinate
FOLDS = 10  # of families, for calibration and for what is said of the labels' own documents
MIN_LABELS = 20  # of either class


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
    rows = Rows(
        features, feature_matrix(features, [passage.text for passage in labelled]), relevant
    )
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


def feature_matrix(features: Features, texts: Sequence[str]) -> csr_matrix:
    """Return the features of passages, a row each."""
    rows = [features(text, [Passage(0, len(text))]) for text in texts]
    starts = np.cumsum([0, *(len(row.values) for row in rows)])
    indices = np.concatenate([row.features for row in rows])
    values = np.concatenate([row.values for row in rows])
    return csr_matrix((values, indices, starts), shape=(len(rows), features.size))


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


def judged(
    fitted: Fitted,
    labelled: Iterable[LabelledPassage],
    documents: Iterable[CuratedDocument],
) -> Iterator[dict[str, Any]]:
    """Yield each labelled passage with the score of its document by a scorer that has seen neither.

    Args:
        fitted: The scorers.
        labelled: The passages that it was fitted to.
        documents: Those that hold them.

    Yields:
        score of the document, whether the passage is relevant, and the weight by which it counts.
    """
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


def _check_enough(relevant: npt.NDArray[np.bool_]) -> None:
    num_relevant = int(relevant.sum())
    fewest = min(num_relevant, len(relevant) - num_relevant)
    if fewest < MIN_LABELS:
        raise ValueError(
            f"labels: {num_relevant} relevant and {len(relevant) - num_relevant} other passages "
            f"were found in the documents; a scorer needs {MIN_LABELS} of each: label more, check "
            "that sources are written as in the data folder, or set labels to null and give topics"
        )
