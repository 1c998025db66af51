"""How two measured rows differ: metrics with paired intervals, training curves, single questions.

The left row comes first: a difference is right - left, a question is gained where only the right
row answers it rightly. Reads the store; builds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from soaes.data.jsonl import read_jsonl
from soaes.metrics.bootstrap import Effect
from soaes.metrics.estimators import Row
from soaes.metrics.samples import sample_keys
from soaes.metrics.schema import PREDICTIONS
from soaes.pipeline.store import Store
from soaes.report.claims import effect_of
from soaes.report.recipe_diff import MatchingStages
from soaes.report.results import TableRow, is_number
from soaes.report.table_spec import Cell, Pair

ROUNDING = 1e-12  # of a mean over thousands of samples, as a share of it
CLOCK = ("seconds", "train/tokens_per_s")  # fields of curves.jsonl that no two runs share


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str  # as the user names it
    row: TableRow
    store: Store


# ---------------------------------------------------------------- metrics


@dataclass(frozen=True)
class MetricDifference:
    """A metric that differs in some seed."""

    metric: str
    left: float  # mean over the shared seeds
    right: float
    effect: Effect  # right - left

    @property
    def is_decided(self) -> bool:
        """Whether the interval lies on one side of zero, beyond rounding."""
        rounding = ROUNDING * max(abs(self.left), abs(self.right))
        return self.effect.low > rounding or self.effect.high < -rounding


@dataclass(frozen=True)
class MetricsDiff:
    """All metrics of two rows, over the seeds in which both are measured."""

    seeds: tuple[int, ...]
    differences: tuple[MetricDifference, ...]
    num_equal: int
    only_left: tuple[str, ...]
    only_right: tuple[str, ...]


def diff_metrics(left: TableRow, right: TableRow) -> MetricsDiff:
    """Compare every metric that is a number, paired over seeds and over the samples they share."""
    seeds = tuple(seed for seed in left.measured if seed in right.measured)
    names = [_metrics(row, seeds) for row in (left, right)]
    differences, num_equal = [], 0
    for metric in names[0]:
        if metric not in names[1]:
            continue
        values = [_values(row, metric, seeds) for row in (left, right)]
        if values[0] == values[1]:
            num_equal += 1
            continue
        pair = Pair(Cell(right.label, metric), Cell(left.label, metric))
        effect = effect_of([right, left], pair)
        if effect is not None:  # None: no seed has both
            means = fmean(values[0].values()), fmean(values[1].values())
            differences.append(MetricDifference(metric, *means, effect))
    only_left = tuple(metric for metric in names[0] if metric not in names[1])
    only_right = tuple(metric for metric in names[1] if metric not in names[0])
    return MetricsDiff(seeds, tuple(differences), num_equal, only_left, only_right)


def _metrics(row: TableRow, seeds: Iterable[int]) -> list[str]:
    """Return the metrics that are numbers in some seed."""
    metrics: dict[str, None] = {}
    for seed in seeds:
        for metric, measured in row.measured[seed].items():
            if is_number(measured.value):
                metrics[metric] = None
    return list(metrics)


def _values(row: TableRow, metric: str, seeds: Iterable[int]) -> dict[int, float]:
    measured = {seed: row.measured[seed] for seed in seeds}
    return {
        seed: metrics[metric].value
        for seed, metrics in measured.items()
        if metric in metrics and is_number(metrics[metric].value)
    }


# ---------------------------------------------------------------- training curves


@dataclass(frozen=True)
class Parting:
    """The first common step of two curves at which a metric differs."""

    step: int
    metric: str
    left: float
    right: float


@dataclass(frozen=True)
class CurvesDiff:
    """The training curves of two matching stages."""

    stages: MatchingStages
    common_steps: int  # that both have logged
    first: Parting | None  # in any metric but those of the clock; None: equal
    loss: Parting | None  # in the training loss


def diff_curves(left: Side, right: Side, stages: Iterable[MatchingStages]) -> list[CurvesDiff]:
    """Compare the training curves of matching stages.

    Args:
        left: One side.
        right: The other.
        stages: The stages; those that are one folder, or of which a side has no curves, are left
            out.
    """
    diffs = []
    for matching in stages:
        paths = [
            left.store.folder(matching.left.name) / "curves.jsonl",
            right.store.folder(matching.right.name) / "curves.jsonl",
        ]
        is_one = paths[0].resolve() == paths[1].resolve()
        if not is_one and all(path.exists() for path in paths):
            curves = [_by_step(path) for path in paths]
            diffs.append(_diff_curve(matching, *curves))
    return diffs


Steps = Mapping[int, Mapping[str, float]]  # step -> metric -> value


def _diff_curve(stages: MatchingStages, left: Steps, right: Steps) -> CurvesDiff:
    partings = []
    common = sorted(left.keys() & right.keys())
    for step in common:
        for metric, value in left[step].items():
            other = right[step].get(metric, value)
            if metric not in CLOCK and other != value:
                partings.append(Parting(step, metric, value, other))
    losses = [parting for parting in partings if parting.metric == "train/loss"]
    first, loss = next(iter(partings), None), next(iter(losses), None)
    return CurvesDiff(stages, len(common), first, loss)


def _by_step(path: Path) -> Steps:
    """Read curves; a step may have a line of training and one of validation."""
    steps: dict[int, dict[str, float]] = {}
    for line in read_jsonl(path):
        steps.setdefault(line.pop("step"), {}).update(line)
    return steps


# ---------------------------------------------------------------- questions


@dataclass(frozen=True)
class Question:
    """One question with both answers."""

    question: str
    reference: str
    left: str
    right: str


@dataclass(frozen=True)
class QuestionsDiff:
    """The questions of two goals in one seed."""

    goal: str
    seed: int
    criterion: str  # what makes an answer right
    num_shared: int  # questions that both have answered, which are compared
    num_questions: tuple[int, int]  # of either side
    num_right: tuple[int, int]  # of the shared ones
    gained: tuple[Question, ...]
    lost: tuple[Question, ...]


def diff_questions(left: Side, right: Side) -> list[QuestionsDiff]:
    """Compare the answers of two rows, question by question and seed by seed.

    Goals whose predictions have no right answer, such as speed, are left out.
    """
    diffs = []
    for seed, goals in left.row.recipes.items():
        for role, recipe in goals.items():
            other = right.row.recipes.get(seed, {}).get(role)
            if other is None:
                continue
            rows = read_jsonl(left.store.folder(recipe.name) / PREDICTIONS)
            other_rows = read_jsonl(right.store.folder(other.name) / PREDICTIONS)
            criterion = _criterion(rows, other_rows)
            if criterion:
                diffs.append(_diff_answers(role, seed, criterion, rows, other_rows))
    return diffs


PICKED = "picks the right option"
NAMED = "names every value that is asked for"
EQUAL = "equals the reference"


def _criterion(left: Sequence[Row], right: Sequence[Row]) -> str:
    """Return by what both sides can be judged; empty if by nothing."""
    rows = [*left, *right]
    if not left or not right:
        return ""
    if all("picked" in row for row in rows):
        return PICKED
    if all("value_recall" in row for row in rows):
        return NAMED
    is_answer = all("question" in row and "prediction" in row for row in rows)
    return EQUAL if is_answer else ""  # acceptance and speed decode prompts, by chance


def _is_right(row: Row, criterion: str) -> bool:
    if criterion == PICKED:
        return bool(row["picked"] == row["answer"])
    if criterion == NAMED:
        return bool(row["value_recall"] == 100)
    return bool(row["prediction"] == row["reference"])


def _diff_answers(
    goal: str, seed: int, criterion: str, left: Sequence[Row], right: Sequence[Row]
) -> QuestionsDiff:
    others: dict[Any, Row] = dict(zip(sample_keys(right), right, strict=True))
    gained: list[Question] = []
    lost: list[Question] = []
    num_shared, num_right = 0, [0, 0]
    for key, row in zip(sample_keys(left), left, strict=True):
        if key not in others:
            continue
        other = others[key]
        was, became = _is_right(row, criterion), _is_right(other, criterion)
        num_shared += 1
        num_right[0] += was
        num_right[1] += became
        if was != became:
            changed = gained if became else lost
            changed.append(_question(row, other))
    return QuestionsDiff(
        goal=goal,
        seed=seed,
        criterion=criterion,
        num_shared=num_shared,
        num_questions=(len(left), len(right)),
        num_right=(num_right[0], num_right[1]),
        gained=tuple(gained),
        lost=tuple(lost),
    )


def _question(left: Row, right: Row) -> Question:
    if "picked" in left:
        return Question(left["question"], left["answer"], left["picked"], right["picked"])
    return Question(left["question"], left["reference"], left["prediction"], right["prediction"])
