"""From predictions.jsonl to metrics as statistics of drawn samples, for the bootstrap to resample.

The metrics are those of `metrics.estimators` and `metrics.acceptance`, which a stage's own
metrics.json takes at counts of one; metrics that belong to no sample (draft_cost) have no
statistic. Knows the fields of predictions.jsonl, not how it was made.

Shapes: B replicates, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from soaes.data.jsonl import read_jsonl
from soaes.metrics import estimators
from soaes.metrics.acceptance import RATIOS, prompt_counts
from soaes.metrics.bootstrap import Pool, Samples
from soaes.metrics.estimators import AVERAGED_EXAMS, Row, weighted_sums

MIN_SAMPLES = 10  # a bootstrap of fewer says nothing: their metrics have no interval
Statistic = Callable[[np.ndarray], np.ndarray]  # counts_BN -> values_B
Condition = Callable[[Row], bool]


@cache
def statistics(predictions: Path) -> dict[str, Samples]:
    """Read the predictions of a measuring stage as statistics; a process reads a file once.

    Args:
        predictions: predictions.jsonl of evaluate, benchmark, acceptance, speed or
            predict_acceptance.

    Returns:
        Metric, as metrics.json names it -> statistic. Empty without predictions.
    """
    rows = read_jsonl(predictions)
    if not rows:
        return {}
    if "exam" in rows[0]:
        return _exams(rows)
    if "steps" in rows[0]:
        return _decoding(rows)
    if "expected_steps" in rows[0]:
        return _predicted_acceptance(rows)
    return _answers(rows)


def sample_keys(rows: Sequence[Row]) -> Pool:
    """Return what identifies each sample across the rows of a table, with its stratum.

    Args:
        rows: The lines of one predictions.jsonl.
    """
    if rows and "exam" in rows[0]:
        return tuple(
            (("exam", row["exam"], row["subject"]), (index, row["question"]))
            for index, row in enumerate(rows)
        )
    if rows and "prompt" in rows[0]:
        return tuple(
            (("prompts", row.get("task", "qa")), (row["id"], row["prompt"])) for row in rows
        )
    return tuple(_answer_key(row) for row in rows)


# ---------------------------------------------------------------- groups of samples


@dataclass(frozen=True, eq=False)
class Group:
    """Some rows of a file, whose metrics have names of their own."""

    prefix: str  # of the metrics' names
    indices_N: np.ndarray
    rows: Sequence[Row]

    def samples(self, pool: Pool, statistic: Statistic) -> Samples:
        """Make a statistic on counts of the whole pool from one on this group's counts."""
        return Samples(pool, lambda counts_BN: statistic(counts_BN[:, self.indices_N]))


def _groups(rows: Sequence[Row], members: Mapping[str, Condition]) -> list[Group]:
    """Select rows by prefix, leaving out groups that are too small."""
    groups = []
    for prefix, belongs in members.items():
        indices = [index for index, row in enumerate(rows) if belongs(row)]
        if len(indices) >= MIN_SAMPLES:
            selected = [rows[index] for index in indices]
            groups.append(Group(prefix, np.array(indices), selected))
    return groups


def _tasks(rows: Sequence[Row]) -> list[str]:
    return sorted({row["task"] for row in rows if "task" in row})


def _has_task(task: str) -> Condition:
    return lambda row: row.get("task") == task


# ---------------------------------------------------------------- evaluate


def _answers(rows: Sequence[Row]) -> dict[str, Samples]:
    """Mean scores over the split, over each of its tasks, and over the unseen set."""
    pool = sample_keys(rows)
    members: dict[str, Condition] = {
        "": lambda row: not _is_unseen(row),
        "unseen_": _is_unseen,
    }
    for task in _tasks(rows):
        members[f"{task}_"] = _seen_of_task(task)
    by_metric = {}
    for group in _groups(rows, members):
        for score, estimator in estimators.answer_scores(group.rows).items():
            by_metric[f"{group.prefix}{score}"] = group.samples(pool, estimator.replicates)
    return by_metric


def _answer_key(row: Row) -> tuple[Any, Any]:
    stratum = ("answers", row.get("split", "test"), row["task"])
    return stratum, (row["id"], row["question"])


def _is_unseen(row: Row) -> bool:
    return row.get("split") == "unseen"


def _seen_of_task(task: str) -> Condition:
    return lambda row: row["task"] == task and not _is_unseen(row)


# ---------------------------------------------------------------- benchmark


def _exams(rows: Sequence[Row]) -> dict[str, Samples]:
    """Accuracy by exam, and the average of CMMLU and C-Eval. Each subject is drawn by itself."""
    pool = sample_keys(rows)
    by_metric = {}
    for exam, accuracy in estimators.exam_accuracies(rows).items():
        indices = [index for index, row in enumerate(rows) if row["exam"] == exam]
        group = Group("", np.array(indices), [rows[index] for index in indices])
        by_metric[exam] = group.samples(pool, accuracy.replicates)
    if by_metric.keys() >= set(AVERAGED_EXAMS):
        cmmlu, ceval = (by_metric[exam].statistic for exam in AVERAGED_EXAMS)
        by_metric["average"] = Samples(
            pool, lambda counts_BN: (cmmlu(counts_BN) + ceval(counts_BN)) / 2
        )
    return by_metric


# ---------------------------------------------------------------- acceptance and speed


def _decoding(rows: Sequence[Row]) -> dict[str, Samples]:
    """Acceptance and, where a clock ran, speed: over all prompts and over each task's."""
    pool = sample_keys(rows)
    members: dict[str, Condition] = {"": lambda row: True}
    members |= {f"{task}_": _has_task(task) for task in _tasks(rows)}
    groups = _groups(rows, members)
    by_metric = {}
    for group in groups:
        for metric, statistic in _acceptance(group.rows).items():
            by_metric[f"{group.prefix}{metric}"] = group.samples(pool, statistic)
    if "seconds" not in rows[0]:
        return by_metric
    for group in groups:
        for metric, estimator in estimators.speeds(group.rows).items():
            by_metric[f"{group.prefix}{metric}"] = group.samples(pool, estimator.replicates)
    return by_metric


def _predicted_acceptance(rows: Sequence[Row]) -> dict[str, Samples]:
    """What predict_acceptance expects: overlap in per cent, and tokens a step at each n."""
    pool = sample_keys(rows)
    tokens_N = np.array([row["new_tokens"] for row in rows], dtype=float)
    overlap_N = 100 * np.array([row["overlap"] for row in rows], dtype=float)
    by_metric = {"overlap_on_text": Samples(pool, _ratio(overlap_N, tokens_N))}
    for n in rows[0]["expected_steps"]:
        steps_N = np.array([row["expected_steps"][n] for row in rows])
        by_metric[f"mean_acceptance_length_n{n}"] = Samples(pool, _ratio(tokens_N, steps_N))
    return by_metric


def _acceptance(rows: Sequence[Row]) -> dict[str, Statistic]:
    """Ratios of two sums over prompts; those whose sums are not reported have no statistic."""
    counts = [prompt_counts(row) for row in rows]
    by_metric = {}
    for metric, ratio in RATIOS.items():
        parts = [count[ratio.numerator] for count in counts]
        wholes_N = np.array([count[ratio.denominator] for count in counts], dtype=float)
        if None not in parts and wholes_N.any():
            parts_N = ratio.factor * np.array(parts, dtype=float)
            by_metric[metric] = _ratio(parts_N, wholes_N)
    return by_metric


def _ratio(parts_N: np.ndarray, wholes_N: np.ndarray) -> Statistic:
    return lambda counts_BN: weighted_sums(counts_BN, parts_N) / weighted_sums(counts_BN, wholes_N)
