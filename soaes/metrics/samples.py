"""From a measuring stage's predictions to its metrics as statistics of drawn samples: what the bootstrap of `intervals` resamples.

Each statistic at counts of all ones is the number of the same name in the stage's metrics.json; metrics that no sample gives
(draft_cost) or too few give have none. Knows predictions.jsonl, not how it was made."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from soaes.data.jsonl import read_jsonl
from soaes.metrics.bootstrap import Pool, Samples

SCORES = ("rouge1", "rouge2", "rougeL", "bleu4", "exact_match")
FEWEST = (
    10  # samples; of fewer a bootstrap knows nothing, and their metric goes without an interval
)
COUNTS = {  # metric -> (what is summed, what it is divided by, factor)
    "acceptance_rate_per_position": ("accepts", "tests", 100),
    "draft_acceptance_rate": ("accepted", "drafted", 100),
    "overlap": ("overlap", "tests", 100),
    "mean_acceptance_length": ("new_tokens", "steps", 1),
    "new_tokens_mean": ("new_tokens", "ones", 1),
}
# B replicates, N samples, K subjects of an exam, R rounds of the clock


@cache
def statistics(predictions: Path) -> dict[str, Samples]:
    """Metric -> statistic, of the predictions of evaluate, benchmark, acceptance, speed or the oracle; a file is read once a process."""
    rows = read_jsonl(predictions)
    if not rows:
        return {}
    kinds = {"exam": _exams, "steps": _decoding, "expected_steps": _expected}
    return next((read for key, read in kinds.items() if key in rows[0]), _answers)(rows)


def _answers(rows: list[dict[str, Any]]) -> dict[str, Samples]:
    """Mean scores over the split, over each of its tasks, and over the questions set apart."""
    pool = tuple(
        (("answers", row.get("split", "test"), row["task"]), (row["id"], row["question"]))
        for row in rows
    )
    unseen_N = np.array([row.get("split") == "unseen" for row in rows])
    found = {"": ~unseen_N, "unseen_": unseen_N} | {
        f"{task}_": mask_N & ~unseen_N for task, mask_N in _tasks(rows).items()
    }
    scores = {
        score: np.array([_score(row, score) for row in rows], dtype=float) for score in SCORES
    }
    return {
        f"{prefix}{score}": _ratio(pool, mask_N * values_N, mask_N)
        for prefix, mask_N in found.items()
        if mask_N.sum() >= FEWEST
        for score, values_N in scores.items()
    }


def _score(row: dict[str, Any], score: str) -> float:
    return 100 * (row["prediction"] == row["reference"]) if score == "exact_match" else row[score]


def _exams(rows: list[dict[str, Any]]) -> dict[str, Samples]:
    """Accuracy by exam, the mean over its subjects, and of CMMLU and C-Eval the average. Subjects are drawn each by itself."""
    pool = tuple(
        (("exam", row["exam"], row["subject"]), (at, row["question"]))
        for at, row in enumerate(rows)
    )
    right_N = np.array([row["picked"] == row["answer"] for row in rows], dtype=float)
    subjects = {
        exam: _columns([row["subject"] if row["exam"] == exam else None for row in rows])
        for exam in {row["exam"]: 0 for row in rows}
    }
    found = {exam: Samples(pool, _accuracy(right_N, of_NK)) for exam, of_NK in subjects.items()}
    if {"cmmlu", "ceval"} <= found.keys():
        both = found["cmmlu"].statistic, found["ceval"].statistic
        found["average"] = Samples(
            pool, lambda counts_BN: (both[0](counts_BN) + both[1](counts_BN)) / 2
        )
    return found


def _accuracy(right_N: np.ndarray, of_NK: np.ndarray) -> Any:
    return lambda counts_BN: (
        100 * (counts_BN @ (right_N[:, None] * of_NK) / (counts_BN @ of_NK)).mean(1)
    )


def _columns(names: list[str | None]) -> np.ndarray:
    """A column of zeros and ones for each name."""
    columns = [one for one in dict.fromkeys(names) if one is not None]
    return np.array([[float(name == one) for one in columns] for name in names])


def _decoding(rows: list[dict[str, Any]]) -> dict[str, Samples]:
    """Acceptance and, where a clock ran, speed: over all prompts and over each task's."""
    pool = _prompts(rows)
    groups = {"": np.ones(len(rows), bool)} | {
        f"{task}_": mask_N for task, mask_N in _tasks(rows).items()
    }
    groups = {prefix: mask_N for prefix, mask_N in groups.items() if mask_N.sum() >= FEWEST}
    sums = {
        name: np.array([row[name] for row in rows], dtype=float)
        for name in ("accepted", "drafted", "overlap", "new_tokens", "steps")
    }
    sums |= {
        name: np.array([sum(row[f"{name}_per_position"]) for row in rows], dtype=float)
        for name in ("accepts", "tests")
    }
    sums["ones"] = np.ones(len(rows))
    found = {
        f"{prefix}{metric}": _ratio(pool, factor * mask_N * sums[part], mask_N * sums[whole])
        for prefix, mask_N in groups.items()
        for metric, (part, whole, factor) in COUNTS.items()
        if (mask_N * sums[whole]).any()
    }
    return found | (
        {
            key: value
            for prefix, mask_N in groups.items()
            for key, value in _speeds(pool, rows, prefix, mask_N).items()
        }
        if "seconds" in rows[0]
        else {}
    )


def _expected(rows: list[dict[str, Any]]) -> dict[str, Samples]:
    """What the oracle foretells: tokens a step at each n."""
    pool, tokens_N = _prompts(rows), np.array([row["new_tokens"] for row in rows], dtype=float)
    return {
        f"mean_acceptance_length_n{n}": _ratio(
            pool, tokens_N, np.array([row["expected_steps"][n] for row in rows])
        )
        for n in rows[0]["expected_steps"]
    }


def _prompts(rows: list[dict[str, Any]]) -> Pool:
    return tuple((("prompts", row.get("task", "qa")), (row["id"], row["prompt"])) for row in rows)


def _speeds(
    pool: Pool, rows: list[dict[str, Any]], prefix: str, mask_N: np.ndarray
) -> dict[str, Samples]:
    """Medians over the rounds: of tokens per second, and of each round's ratio to its own autoregression."""
    ours, theirs = (_per_second(rows, side, mask_N) for side in ("", "autoregressive_"))
    return {
        f"{prefix}tokens_per_s": Samples(
            pool, lambda counts_BN: np.median(ours(counts_BN), axis=1)
        ),
        f"{prefix}autoregressive_tokens_per_s": Samples(
            pool, lambda counts_BN: np.median(theirs(counts_BN), axis=1)
        ),
        f"{prefix}speedup": Samples(
            pool, lambda counts_BN: np.median(ours(counts_BN) / theirs(counts_BN), axis=1)
        ),
    }


def _per_second(rows: list[dict[str, Any]], side: str, mask_N: np.ndarray) -> Any:
    tokens_NR, seconds_NR = (
        mask_N[:, None] * np.array([row[f"{side}{name}"] for row in rows], dtype=float)
        for name in ("round_tokens", "seconds")
    )
    return lambda counts_BN: (counts_BN @ tokens_NR) / (counts_BN @ seconds_NR)


def _tasks(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {
        task: np.array([row.get("task") == task for row in rows])
        for task in sorted({row["task"] for row in rows if "task" in row})
    }


def _ratio(pool: Pool, parts_N: np.ndarray, wholes_N: np.ndarray) -> Samples:
    return Samples(pool, lambda counts_BN: _sums(counts_BN, parts_N) / _sums(counts_BN, wholes_N))


def _sums(counts_BN: np.ndarray, values_N: np.ndarray) -> np.ndarray:
    """counts_BN @ values_N, which so small is 20 times slower through BLAS while other processes hold the cores."""
    return np.einsum("bn,n->b", counts_BN, values_N.astype(float))
