"""How two stores differ: which stages they share, and what the others are built differently by.

A stage of one recipe has one name in both. Of the rest, each stage that only the left store has is
matched with the one of the right store that is most like it. Reads recipes and metrics alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soaes.pipeline import labels, lineage
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, read_recipe
from soaes.report.recipe_diff import Setting

TIMED = ("speed",)  # stages that measure a clock: two builds of one recipe differ
CLOCK = ("seconds",)  # of the metrics of other stages


@dataclass(frozen=True)
class MetricChange:
    """A metric of one recipe that has two values."""

    stage: str
    metric: str
    left: Any
    right: Any


@dataclass(frozen=True)
class StoreDiff:
    """Two stores, by the names of their complete outputs."""

    shared: tuple[str, ...]
    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    changes: tuple[MetricChange, ...]  # of shared stages: what is not the same to the bit
    num_timed: int  # shared stages that were not compared, because a clock ran
    matches: tuple[tuple[str, str], ...]  # of stages that one store has alone
    settings: Mapping[Setting, int]  # own settings in which matches differ -> in how many


def diff_stores(left: Store, right: Store) -> StoreDiff:
    """Compare all complete outputs of two stores."""
    names, others = left.all_names(), right.all_names()
    shared = tuple(name for name in names if name in others)
    timed = [name for name in shared if _stage(name) in TIMED]
    changes = []
    for name in shared:
        if name not in timed:
            changes += _changes(name, left.metrics(name), right.metrics(name))
    only_left = tuple(name for name in names if name not in others)
    only_right = tuple(name for name in others if name not in names)
    matches = _matches(left, only_left, right, only_right)
    settings: Counter[Setting] = Counter()
    for name, other in matches:
        settings.update(_own_settings(left, name, right, other))
    return StoreDiff(
        shared=shared,
        only_left=only_left,
        only_right=only_right,
        changes=tuple(changes),
        num_timed=len(timed),
        matches=tuple(matches),
        settings=dict(settings.most_common()),
    )


def _stage(name: str) -> str:
    return name.rpartition("-")[0]


Metrics = Mapping[str, Any]  # of metrics.json


def _changes(name: str, left: Metrics, right: Metrics) -> list[MetricChange]:
    changes = []
    for metric in dict.fromkeys([*left, *right]):
        values = left.get(metric), right.get(metric)
        if metric not in CLOCK and values[0] != values[1]:
            changes.append(MetricChange(name, metric, *values))
    return changes


def _matches(
    left: Store, names: tuple[str, ...], right: Store, others: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Match stages of one function whose models have the same steps, nearest settings first."""
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for other in others:
        kinds.setdefault(_kind(read_recipe(right, other)), []).append(other)
    distances = []
    for name in names:
        for other in kinds.get(_kind(read_recipe(left, name)), ()):
            settings = _own_settings(left, name, right, other)
            distances.append((len(settings), name, other))
    matches: list[tuple[str, str]] = []
    used: set[str] = set()
    for _, name, other in sorted(distances):
        if name not in used and other not in used:
            used |= {name, other}
            matches.append((name, other))
    return matches


def _kind(recipe: Recipe) -> tuple[Any, ...]:
    """Return what two stages must share to be matched: function, seed, and steps of its models."""
    models = [recipe] if recipe.stage in labels.MODELS else []
    models += [parent for parent in recipe.parents.values() if parent.stage in labels.MODELS]
    steps = [tuple(labels.step(model) for model in lineage.chain(parent)) for parent in models]
    return (recipe.stage, recipe.arguments.get("seed"), *steps)


def _own_settings(left: Store, name: str, right: Store, other: str) -> list[Setting]:
    """List the settings of two stages that differ, without what they read."""
    recipe, other_recipe = read_recipe(left, name), read_recipe(right, other)
    parents = {*recipe.parents, *other_recipe.parents}
    settings = []
    for key, (ours, theirs) in labels.differences(recipe.written, other_recipe.written).items():
        if key not in parents and key != "_target_":
            settings.append(Setting(recipe.stage, key, str(ours), str(theirs)))
    return settings
