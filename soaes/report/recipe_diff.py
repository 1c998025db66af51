"""How two recipes differ, with all that they read: settings, steps of a chain, matching stages.

Chains of models are aligned step by step, so a chain that lacks a step differs in that step alone.
Every pair of stages is compared once, however many read it. Knows recipes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from soaes.pipeline import labels, lineage
from soaes.pipeline.recipe import Recipe, declared_name


@dataclass(frozen=True)
class Setting:
    """A setting that differs; a side that lacks it has `-`."""

    stage: str  # whose setting it is: `pack`, or of a model `target: stage-2 SFT`
    key: str  # dotted; empty where one side lacks the whole stage
    left: str
    right: str


@dataclass(frozen=True)
class MatchingStages:
    """Two stages that have the same place in what is compared."""

    title: str
    left: Recipe
    right: Recipe


@dataclass
class RecipeDiff:
    """The result, in the order in which stages are built."""

    settings: list[Setting] = field(default_factory=list)
    stages: list[MatchingStages] = field(default_factory=list)


def diff(pairs: Iterable[tuple[Recipe, Recipe]]) -> RecipeDiff:
    """Compare recipes pair by pair and, recursively, everything that they read."""
    comparison = _Comparison()
    for left, right in pairs:
        comparison.compare(left, right, left.stage)
    return comparison.result


class _Comparison:
    """Walks two ancestries side by side. State: the result, and the pairs that were compared."""

    def __init__(self) -> None:
        self.result = RecipeDiff()
        self.seen: set[tuple[str, str]] = set()

    def compare(self, left: Recipe, right: Recipe, path: str) -> None:
        """Compare two recipes that are read under one path of arguments."""
        if (left.name, right.name) in self.seen:
            return
        if {left.stage, right.stage} <= labels.MODELS:
            self._compare_chains(left, right, path.rpartition(".")[2])
        else:
            self._compare_stages(left, right, left.stage)

    def _compare_chains(self, left: Recipe, right: Recipe, argument: str) -> None:
        if labels.step(left) != labels.step(right):  # else seen with the last step
            self.seen.add((left.name, right.name))
        chains = lineage.chain(left), lineage.chain(right)
        steps, other_steps = (list(map(labels.step, chain)) for chain in chains)
        matcher = SequenceMatcher(None, steps, other_steps, autojunk=False)
        for kind, start, end, other_start, other_end in matcher.get_opcodes():
            ours, theirs = chains[0][start:end], chains[1][other_start:other_end]
            if kind == "equal":
                for model, other in zip(ours, theirs, strict=True):
                    self._compare_stages(model, other, f"{argument}: {labels.step(model)}")
                continue
            for model in ours:
                self._add(f"{argument}: {labels.step(model)}", "", model.name, "-")
            for model in theirs:
                self._add(f"{argument}: {labels.step(model)}", "", "-", model.name)

    def _compare_stages(self, left: Recipe, right: Recipe, title: str) -> None:
        """Compare what two stages read, then their own settings; a model's parent is its chain's.

        Stages of two functions share no settings: of them only the parents are compared.
        """
        if (left.name, right.name) in self.seen:
            return
        self.seen.add((left.name, right.name))
        is_model = left.stage in labels.MODELS
        parents = dict(right.parents)
        for path, parent in left.parents.items():
            if path in parents and not (is_model and path in lineage.MODEL):
                self.compare(parent, parents[path], path)
        self.result.stages.append(MatchingStages(title, left, right))
        if left.stage != right.stage:
            self._add(title, "stage", left.stage, right.stage)
            return
        ours, theirs = labels.flatten(left.written), labels.flatten(right.written)
        for key in dict.fromkeys([*ours, *theirs]):
            if key == "_target_" or (is_model and key in lineage.MODEL):
                continue
            if not (key in left.parents and key in right.parents):
                self._add_values(title, key, _written(ours, key), _written(theirs, key))

    def _add_values(self, title: str, key: str, left: str, right: str) -> None:
        """Add a setting; functions are known by their declared names, wherever their code lies."""
        if key.rpartition(".")[2] == "_target_":
            left, right = declared_name(left), declared_name(right)
        if left != right:
            self._add(title, key, left, right)

    def _add(self, title: str, key: str, left: str, right: str) -> None:
        self.result.settings.append(Setting(title, key, left, right))


def _written(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "-"
    return "null" if flat[key] is None else str(flat[key])
