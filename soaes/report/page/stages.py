"""Every stage behind the tables, as the page shows it: recipe, lineage, origin, curves.

Knows the store and its recipes; no tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from soaes.data.jsonl import read_jsonl
from soaes.pipeline import labels
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, read_json
from soaes.report import time_profile

DIGITS = 5  # significant digits of a curve's values

Seeds = Mapping[str, list[int]]  # stage -> seeds of the rows that need it


class StageRecord(TypedDict):
    """One stage of the ancestry of a row."""

    stage: str  # the function's name
    label: str  # of a model, its chain in words; empty for any other stage
    settings: dict[str, str]  # own arguments by dotted key
    parents: dict[str, str]  # argument -> name of the stage that is read
    seeds: list[int]  # of the rows that need it
    state: str  # built, failed or not built
    reason: str  # why it failed, in one line
    made: str  # when, in UTC; empty unless it is built, as the rest
    seconds: float
    commit: str
    machine: str


class Curve(TypedDict):
    """The curves of one training stage: of each metric its steps and its values."""

    chain: str  # the model's label, with the settings that tell it from others of that label
    stage: str
    seeds: list[int]
    metrics: dict[str, tuple[list[int], list[float]]]


class TimeRecord(TypedDict):
    """Where the time of one kind of stage went."""

    kind: str
    number: int
    seconds: float


def ancestry(goals: Iterable[tuple[int, Recipe]]) -> tuple[dict[str, Recipe], Seeds]:
    """Collect the stages that some goals need.

    Args:
        goals: Seed and recipe of each.

    Returns:
        The recipes by name, parents first, and of each the seeds that need it.
    """
    recipes: dict[str, Recipe] = {}
    seeds: dict[str, set[int]] = defaultdict(set)
    for seed, goal in goals:
        for name, recipe in goal.ancestry().items():
            recipes[name] = recipe
            seeds[name].add(seed)
    return recipes, {name: sorted(of_stage) for name, of_stage in seeds.items()}


def stage_record(store: Store, recipe: Recipe, seeds: list[int]) -> StageRecord:
    """Describe one stage, built or not."""
    settings = labels.own_arguments(recipe)
    record: StageRecord = {
        "stage": recipe.stage,
        "label": labels.label(recipe) if recipe.stage in labels.MODELS else "",
        "settings": {key: str(value) for key, value in settings.items()},
        "parents": {path: parent.name for path, parent in recipe.parents.items()},
        "seeds": seeds,
        "state": "not built",
        "reason": "",
        "made": "",
        "seconds": 0.0,
        "commit": "",
        "machine": "",
    }
    if store.holds(recipe.name):
        manifest = store.manifest(recipe.name)
        record["state"] = "built"
        record["made"] = manifest["made"]
        record["seconds"] = manifest["seconds"]
        record["commit"] = manifest["commit"]
        record["machine"] = manifest["machine"]
    elif reason := store.failure(recipe.name):
        record["state"] = "failed"
        record["reason"] = reason
    return record


def times(store: Store, recipes: Mapping[str, Recipe]) -> list[TimeRecord]:
    """Add up the time of the built stages by kind, the longest first."""
    built = {name: recipe for name, recipe in recipes.items() if store.holds(name)}
    return [
        {"kind": kind.kind, "number": len(kind.stages), "seconds": round(kind.seconds, 1)}
        for kind in time_profile.by_kind(store, built)
    ]


# ---------------------------------------------------------------- training curves


def curves(store: Store, recipes: Mapping[str, Recipe], seeds: Seeds) -> dict[str, Curve]:
    """Read the curves of every training stage that is built.

    Args:
        store: Where the stages lie.
        recipes: Their recipes by name.
        seeds: The seeds that need each.
    """
    trained = {}
    for name, recipe in recipes.items():
        if (store.folder(name) / "curves.jsonl").exists():
            trained[name] = recipe
    chains = chain_names(trained, seeds)
    return {
        name: {
            "chain": chains[name],
            "stage": recipe.stage,
            "seeds": seeds[name],
            "metrics": _metrics(store, name),
        }
        for name, recipe in trained.items()
    }


def _metrics(store: Store, name: str) -> dict[str, tuple[list[int], list[float]]]:
    metrics: dict[str, tuple[list[int], list[float]]] = {}
    for values in read_jsonl(store.folder(name) / "curves.jsonl"):
        step = values.pop("step")
        for metric, value in values.items():
            steps, column = metrics.setdefault(metric, ([], []))
            steps.append(step)
            column.append(float(f"{value:.{DIGITS}g}"))
    return metrics


def chain_names(recipes: Mapping[str, Recipe], seeds: Seeds) -> dict[str, str]:
    """Name each model so that those of one seed differ: its label, and settings in brackets.

    Args:
        recipes: Models by name.
        seeds: The seeds that need each.

    Returns:
        The name of each: `Base 3x96 + CPT (lr=0.0003)` where CPT was run at several rates.
    """
    by_label: dict[str, list[Recipe]] = defaultdict(list)
    for recipe in recipes.values():
        by_label[labels.label(recipe)].append(recipe)
    names = {}
    for label, same in by_label.items():
        keys = _differing_keys(same)
        used: set[tuple[str, int]] = set()
        for recipe in same:
            settings = labels.own_arguments(recipe)
            words = [f"{key.rpartition('.')[2]}={settings.get(key, '-')}" for key in keys]
            name = f"{label} ({', '.join(words)})" if words else label
            places = {(name, seed) for seed in seeds[recipe.name]}
            if places & used:  # they differ in what they read alone
                name = f"{name} {recipe.hash[:4]}"
            used |= places
            names[recipe.name] = name
    return names


def _differing_keys(recipes: list[Recipe]) -> list[str]:
    """List the settings, but seeds, in which recipes differ."""
    values: dict[str, set[str]] = defaultdict(set)
    flats = [labels.own_arguments(recipe) for recipe in recipes]
    for key in dict.fromkeys(key for flat in flats for key in flat):
        if key.rpartition(".")[2] != "seed":
            values[key] = {str(flat.get(key, "-")) for flat in flats}
    return [key for key, different in values.items() if len(different) > 1]


# ---------------------------------------------------------------- data accounts


def data_accounts(
    store: Store, recipes: Mapping[str, Recipe], seeds: Seeds
) -> list[dict[str, Any]]:
    """Read what became of the documents: packing reports, and the report of a curation.

    Returns:
        For each folder of rows or of a user's data: its name, stage, seeds, and the report.
    """
    files = {"pack": "packing_report.json", "files": "curation_report.json"}
    accounts = []
    for name, recipe in recipes.items():
        if recipe.stage not in files or not store.holds(name):
            continue
        report = read_json(store.folder(name) / files[recipe.stage])
        account = {"name": name, "stage": recipe.stage, "seeds": seeds[name], "report": report}
        accounts.append(account)
    return accounts
