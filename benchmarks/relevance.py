"""How well the relevance scorer ranks and calibrates passages of families that it has not seen.

    python -m benchmarks.relevance DOCUMENTS LABELS [--out benchmarks/results/relevance.json]

DOCUMENTS is the folder of a stage of soaes.stages.corpus. Every family of documents that share
text (the versions of a law, the reports of five years) is left out once; families without a
relevant passage are left out in eight groups. Passages count by the inverse of the probability with
which they were drawn, so that figures hold for the corpus; `as_sampled` counts each once, which is
harder: most of the sample was drawn since it looks relevant. Calibration is fitted anew without
each family.

Knows scores and labels.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from sklearn.metrics import cohen_kappa_score

from soaes.data.curation import relevance_training
from soaes.data.curation.document import read_documents
from soaes.data.curation.labels import Label, LabelledPassage, labelled_passages, read_labels
from soaes.data.curation.relevance import Features, TopicScorer, sigmoid
from soaes.data.jsonl import read_jsonl
from soaes.pipeline.store import write_json

MIN_RELEVANT = 5  # a family with fewer has no AUC of its own
NEGATIVE_GROUPS = 8
RESAMPLES = 1000
BINS = 10  # of equal weight, for the calibration error
TARGETS = {"mean_auc": 0.95, "worst_auc": 0.88, "keyword_free_auc": 0.93, "ece": 0.05}

Vector = npt.NDArray[np.float64]


def family_of(label: Label) -> str:
    """Return the family of a label: its file, where no family is given."""
    return label.family or label.file


class Evaluation:
    """Labelled passages with the scores of models that have not seen their families.

    Args:
        labelled: The passages.
        topics: An expert's topics.
    """

    def __init__(self, labelled: Sequence[LabelledPassage], topics: dict[str, list[str]]) -> None:
        self.relevant = np.array([passage.label.relevant for passage in labelled], bool)
        self.weights = np.array([1 / passage.label.probability for passage in labelled])
        self.families = np.array([family_of(passage.label) for passage in labelled])
        density = TopicScorer(topics).density
        self.densities = np.array([density(passage.text) for passage in labelled])
        self.decisions = np.zeros(len(labelled))
        self.probabilities = np.zeros(len(labelled))
        self._score(labelled, topics)

    def _score(self, labelled: Sequence[LabelledPassage], topics: dict[str, list[str]]) -> None:
        features = Features(topics)
        matrix = relevance_training.feature_matrix(features, [one.text for one in labelled])
        rows = relevance_training.Rows(features, matrix, self.relevant)
        groups = self._groups()
        for group in sorted(set(groups)):
            held_out = groups == group
            scorer = rows.fit(~held_out)
            self.decisions[held_out] = rows.decisions(scorer)[held_out]
        for group in sorted(set(groups)):
            held_out = groups == group
            slope, offset = relevance_training.calibration(
                self.decisions[~held_out], self.relevant[~held_out], self.weights[~held_out]
            )
            logits = slope * self.decisions[held_out] + offset
            self.probabilities[held_out] = sigmoid(logits)

    def _groups(self) -> npt.NDArray[np.str_]:
        """Return the group with which each passage is left out."""
        with_relevant = set(self.families[self.relevant])
        return np.array(
            [
                family
                if family in with_relevant
                else f"others {zlib.crc32(family.encode()) % NEGATIVE_GROUPS}"
                for family in self.families
            ]
        )

    def calibration_error(self, weights: Vector) -> float:
        """Return the expected calibration error over bins of equal weight."""
        order = np.argsort(self.probabilities, kind="stable")
        ends = np.cumsum(weights[order]) / weights.sum()
        bins = np.minimum((ends * BINS).astype(int), BINS - 1)
        error = 0.0
        for number in range(BINS):
            inside = order[bins == number]
            if len(inside):
                shares = weights[inside] / weights.sum()
                gaps = self.probabilities[inside] - self.relevant[inside]
                error += abs(float(shares @ gaps))
        return error

    def resampled(self, rng: np.random.Generator) -> Vector:
        """Return the weights of one bootstrap sample of families."""
        names = sorted(set(self.families))
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
        times = dict(zip(names, drawn, strict=True))
        return self.weights * np.array([times[family] for family in self.families])


class Ranking:
    """Areas under the ROC curve by scores, each of some relevant passages against all others.

    Args:
        evaluation: The passages.
        scores: By which they are ranked.
    """

    def __init__(self, evaluation: Evaluation, scores: Vector) -> None:
        self._relevant = evaluation.relevant
        self.families = evaluation.families[evaluation.relevant]
        self.keyword_free = evaluation.densities[evaluation.relevant] == 0
        ours = scores[self._relevant][:, None]
        others = scores[~self._relevant]
        self._wins = (ours > others) + 0.5 * (
            ours == others
        )  # pairs of a relevant passage, another
        names, counts = np.unique(self.families, return_counts=True)
        self._names = names[counts >= MIN_RELEVANT]

    def figures(self, weights: Vector) -> dict[str, float]:
        """Return the figures that have targets, but for calibration."""
        by_family = list(self.by_family(weights).values()) or [float("nan")]
        shares, own_weights = self._shares(weights)
        return {
            "mean_auc": float(np.mean(by_family)),
            "worst_auc": min(by_family),
            "auc": _mean(shares, own_weights),
            "keyword_free_auc": _mean(shares[self.keyword_free], own_weights[self.keyword_free]),
        }

    def by_family(self, weights: Vector) -> dict[str, float]:
        """Return the AUC of every family that is drawn and has enough relevant passages."""
        shares, own_weights = self._shares(weights)
        aucs = {}
        for name in self._names:
            of_family = self.families == name
            if own_weights[of_family].any():
                aucs[str(name)] = _mean(shares[of_family], own_weights[of_family])
        return aucs

    def _shares(self, weights: Vector) -> tuple[Vector, Vector]:
        """Return, for each relevant passage, the share of others that it beats, and its weight."""
        others = weights[~self._relevant]
        return self._wins @ others / others.sum(), weights[self._relevant]


def intervals(evaluation: Evaluation, ranking: Ranking) -> dict[str, list[float]]:
    """Return 95 % intervals of the figures, over resampled families."""
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        weights = evaluation.resampled(rng)
        figures = ranking.figures(weights)
        figures["ece"] = evaluation.calibration_error(weights)
        for name, value in figures.items():
            samples.setdefault(name, []).append(value)
    bounds = {name: np.nanpercentile(values, [2.5, 97.5]) for name, values in samples.items()}
    return {name: [round(float(bound), 4) for bound in pair] for name, pair in bounds.items()}


def agreement(path: Path) -> dict[str, float]:
    """Return how far the second labels agree with the first."""
    twice = [record for record in read_jsonl(path) if "second" in record]
    first = [record["label"] for record in twice]
    second = [record["second"] for record in twice]
    same = float(np.mean([one == other for one, other in zip(first, second, strict=True)]))
    kappa = float(cohen_kappa_score(first, second))
    return {"labelled_twice": len(twice), "agreement": round(same, 4), "kappa": round(kappa, 4)}


def evaluate(labelled: Sequence[LabelledPassage], topics: dict[str, list[str]]) -> dict[str, Any]:
    """Return the figures for benchmarks/results/relevance.json."""
    evaluation = Evaluation(labelled, topics)
    weights = evaluation.weights
    ranking = Ranking(evaluation, evaluation.decisions)
    density = Ranking(evaluation, evaluation.densities)
    ece = evaluation.calibration_error(weights)
    return {
        "passages": len(labelled),
        "relevant": int(evaluation.relevant.sum()),
        "keyword_free_relevant": int(ranking.keyword_free.sum()),
        "families": len(set(evaluation.families)),
        "share_relevant": round(float(weights @ evaluation.relevant / weights.sum()), 5),
        "figures": _rounded({**ranking.figures(weights), "ece": ece}),
        "intervals_95": intervals(evaluation, ranking),
        "targets": TARGETS,
        "auc_by_family": _rounded(ranking.by_family(weights)),
        "as_sampled": _rounded(ranking.figures(np.ones(len(labelled)))),
        "topic_density": _rounded(density.figures(weights)),
    }


def _mean(values: Vector, weights: Vector) -> float:
    """Return the weighted mean; NaN without weights."""
    total = weights.sum()
    return float(values @ weights / total) if total else float("nan")


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def command_line(description: str, name: str) -> argparse.Namespace:
    """Return what a command line says of the corpus, the labels, the domain and the results.

    Args:
        description: What the command does.
        name: Of the file of results, without its suffix.
    """
    out = Path(f"benchmarks/results/{name}.json")
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("documents", type=Path, help="folder of a stage of soaes.stages.corpus")
    parser.add_argument("labels", type=Path)
    parser.add_argument("--domain", type=Path, default=Path("conf/domain/soaes.yaml"))
    parser.add_argument("--out", type=Path, default=out)
    return parser.parse_args()


def main() -> None:
    """Evaluate the scorer on a corpus and its labels."""
    arguments = command_line(__doc__.splitlines()[0], "relevance")
    topics = yaml.safe_load(arguments.domain.read_text(encoding="utf-8"))["topics"]
    labels = read_labels(arguments.labels)
    labelled = list(labelled_passages(labels, read_documents(arguments.documents)))
    result = evaluate(labelled, topics)
    result = {"labels": len(labels), **agreement(arguments.labels), **result}
    write_json(arguments.out, result)
    for name, target in TARGETS.items():
        print(f"{name:18}{result['figures'][name]:8.4f}   target {target}")


if __name__ == "__main__":
    main()
