"""Metrics over samples, defined once: a stage takes their value, the bootstrap their replicates.

`value` uses Python's own sums, so that metrics.json does not depend on the order in which a vector
library adds; `replicates` applies the same formula to weighted samples. At weights of one the two
agree to rounding. Acceptance rates have their definitions in `metrics.acceptance`.

Shapes: B replicates, N samples, K subjects of an exam, R rounds of the clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

Row = Mapping[str, Any]  # a line of predictions.jsonl, see metrics.schema

SCORES = ("rouge1", "rouge2", "rougeL", "bleu4")
RECALLS = ("attribute_recall", "value_recall")  # where the questions say what they ask for
AVERAGED_EXAMS = ("cmmlu", "ceval")


class Estimator(Protocol):
    """A metric of some samples."""

    def value(self) -> float:
        """Return the metric, each sample counted once."""

    def replicates(self, counts_BN: np.ndarray) -> np.ndarray:
        """Return the metric B times, sample n counted `counts_BN[b, n]` times."""


# ---------------------------------------------------------------- answers


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of a number a sample, times `scale`."""

    numbers: Sequence[float]
    scale: int = 1

    def value(self) -> float:
        """Return the mean, each sample counted once."""
        return self.scale * statistics.fmean(self.numbers)

    def replicates(self, counts_BN: np.ndarray) -> np.ndarray:
        """Return the weighted means."""
        scaled_N = self.scale * np.array(self.numbers, dtype=float)
        return weighted_sums(counts_BN, scaled_N) / counts_BN.sum(1)


@dataclass(frozen=True, eq=False)
class MeanPerToken:
    """A sum over samples per token of them, such as the nats of a token."""

    sums: Sequence[float]
    tokens: Sequence[int]

    def value(self) -> float:
        """Return the mean over tokens, each sample counted once."""
        return sum(self.sums) / sum(self.tokens)

    def replicates(self, counts_BN: np.ndarray) -> np.ndarray:
        """Return the means over the tokens of weighted samples."""
        sums_B = weighted_sums(counts_BN, np.array(self.sums, dtype=float))
        return sums_B / weighted_sums(counts_BN, np.array(self.tokens, dtype=float))


def answer_scores(rows: Sequence[Row]) -> dict[str, Estimator]:
    """Define the scores of `evaluate` over some of its predictions.

    All are in 0..100, but `reference_loss`, in nats a token.
    """
    scores: dict[str, Estimator] = {score: Mean([row[score] for row in rows]) for score in SCORES}
    if rows and all("value_recall" in row for row in rows):
        scores |= {recall: Mean([row[recall] for row in rows]) for recall in RECALLS}
    if rows and all("reference_nats" in row for row in rows):
        nats = [row["reference_nats"] for row in rows]
        scores["reference_loss"] = MeanPerToken(nats, [row["reference_tokens"] for row in rows])
    exact = [row["prediction"] == row["reference"] for row in rows]
    return scores | {"exact_match": Mean(exact, scale=100)}


# ---------------------------------------------------------------- exams


@dataclass(frozen=True, eq=False)
class SubjectAccuracy:
    """Accuracy in per cent: the mean over subjects, as CMMLU and C-Eval report it."""

    subjects: Sequence[str]  # of each question
    correct: Sequence[bool]

    def value(self) -> float:
        """Return the mean over subjects, each question counted once."""
        by_subject: dict[str, list[bool]] = {}
        for subject, correct in zip(self.subjects, self.correct, strict=True):
            by_subject.setdefault(subject, []).append(correct)
        accuracies = [statistics.mean(marks) for marks in by_subject.values()]
        return 100 * statistics.mean(accuracies)

    def replicates(self, counts_BN: np.ndarray) -> np.ndarray:
        """Return the mean over subjects of the weighted accuracies."""
        correct_N = np.array(self.correct, dtype=float)
        of_subject_NK = self._membership_NK
        correct_BK = counts_BN @ (correct_N[:, None] * of_subject_NK)
        return 100 * (correct_BK / (counts_BN @ of_subject_NK)).mean(1)

    @cached_property
    def _membership_NK(self) -> np.ndarray:
        names = dict.fromkeys(self.subjects)
        return np.array([[float(own == name) for name in names] for own in self.subjects])


def exam_accuracies(rows: Sequence[Row]) -> dict[str, SubjectAccuracy]:
    """Define the accuracy of each exam over the predictions of `benchmark`."""
    by_exam: dict[str, list[Row]] = {}
    for row in rows:
        by_exam.setdefault(row["exam"], []).append(row)
    return {exam: _accuracy(questions) for exam, questions in by_exam.items()}


def _accuracy(rows: Sequence[Row]) -> SubjectAccuracy:
    correct = [row["picked"] == row["answer"] for row in rows]
    return SubjectAccuracy([row["subject"] for row in rows], correct)


# ---------------------------------------------------------------- speed


@dataclass(frozen=True, eq=False)
class Throughput:
    """Generated tokens a second, by round."""

    tokens_NR: Sequence[Sequence[int]]
    seconds_NR: Sequence[Sequence[float]]

    def by_round(self) -> list[float]:
        """Return tokens a second of each round, each prompt counted once."""
        tokens_R, seconds_R = _column_sums(self.tokens_NR), _column_sums(self.seconds_NR)
        return [tokens / seconds for tokens, seconds in zip(tokens_R, seconds_R, strict=True)]

    def replicates_by_round(self, counts_BN: np.ndarray) -> np.ndarray:
        """Return tokens a second, B replicates of R rounds."""
        tokens_NR, seconds_NR = np.array(self.tokens_NR, float), np.array(self.seconds_NR, float)
        return (counts_BN @ tokens_NR) / (counts_BN @ seconds_NR)

    def value(self) -> float:
        """Return the median over rounds, each prompt counted once."""
        return statistics.median(self.by_round())

    def replicates(self, counts_BN: np.ndarray) -> np.ndarray:
        """Return the medians over rounds."""
        return np.median(self.replicates_by_round(counts_BN), axis=1)


@dataclass(frozen=True, eq=False)
class Speedup:
    """Throughput over that of the autoregressive baseline, paired round by round."""

    decoder: Throughput
    baseline: Throughput

    def by_round(self) -> list[float]:
        """Return the ratio of each round, each prompt counted once."""
        pairs = zip(self.decoder.by_round(), self.baseline.by_round(), strict=True)
        return [ours / theirs for ours, theirs in pairs]

    def value(self) -> float:
        """Return the median over rounds, each prompt counted once."""
        return statistics.median(self.by_round())

    def replicates(self, counts_BN: np.ndarray) -> np.ndarray:
        """Return the medians over rounds."""
        decoder_BR = self.decoder.replicates_by_round(counts_BN)
        return np.median(decoder_BR / self.baseline.replicates_by_round(counts_BN), axis=1)


def throughput(rows: Sequence[Row], side: str = "") -> Throughput:
    """Define tokens a second over predictions of `speed`.

    Args:
        rows: Predictions of `speed`.
        side: The prefix of a side's fields: "" is the decoder, "autoregressive_" the baseline.
    """
    tokens_NR = [row[f"{side}round_tokens"] for row in rows]
    return Throughput(tokens_NR, [row[f"{side}seconds"] for row in rows])


def speedup(rows: Sequence[Row]) -> Speedup:
    """Define the speedup over autoregression of predictions of `speed`."""
    return Speedup(throughput(rows), throughput(rows, "autoregressive_"))


def speeds(rows: Sequence[Row]) -> dict[str, Speedup | Throughput]:
    """Define the timed metrics of `speed` over some of its predictions."""
    ratio = speedup(rows)
    return {
        "speedup": ratio,
        "tokens_per_s": ratio.decoder,
        "autoregressive_tokens_per_s": ratio.baseline,
    }


# ---------------------------------------------------------------- sums


def weighted_sums(counts_BN: np.ndarray, numbers_N: np.ndarray) -> np.ndarray:
    """Return counts_BN @ numbers_N.

    A product this small takes BLAS 20 times as long while other processes hold the cores.
    """
    return np.einsum("bn,n->b", counts_BN, numbers_N.astype(float))


def _column_sums(rows: Iterable[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]
