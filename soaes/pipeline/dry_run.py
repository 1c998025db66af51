"""Look ahead: which stages a set of goals would run, how they differ from built ones, and the cost.

Reads the store; builds nothing and imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from soaes.pipeline import labels
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.scheduler import missing
from soaes.pipeline.store import Store


def plan(store: Store, recipes: list[Recipe]) -> Iterator[str]:
    """Yield a line for each stage, then what running them is expected to cost.

    A stage is `to run`, `cached`, or `spared`: not in the store, and not needed either, because
    what is built from it is there.
    """
    todo = missing(store, recipes)
    for name, recipe in _ancestry(recipes).items():
        if name in todo:
            yield f"  to run  {name}{_difference(store, recipe)}"
        elif store.holds(name):
            yield f"  cached  {name}"
        else:
            yield f"  spared  {name}"
    yield from cost(store, todo)
    mixed = mixed_code(store, recipes)
    if mixed:
        yield f"Warning: cached {', '.join(mixed)} come from different code"


def _ancestry(recipes: list[Recipe]) -> dict[str, Recipe]:
    """Return all stages that some goals need, themselves included, parents first."""
    stages: dict[str, Recipe] = {}
    for recipe in recipes:
        stages.update(recipe.ancestry())
    return stages


def _difference(store: Store, recipe: Recipe) -> str:
    """Return the keys in which a stage differs from the most similar cached stage of its kind."""
    candidates = []
    for name in store.names(recipe.stage):
        keys = labels.differences(recipe.written, store.recipe(name))
        candidates.append((keys, name))
    if not candidates:
        return ""
    keys, name = min(candidates, key=lambda candidate: len(candidate[0]))
    changes = [f"{key} {here} instead of {there}" for key, (here, there) in keys.items()]
    return f"  unlike {name}: {', '.join(changes)}"


def mixed_code(store: Store, recipes: list[Recipe]) -> list[str]:
    """Return the kinds of stages that were built by more than one state of the code they call.

    Args:
        store: Where the stages lie.
        recipes: The goals whose ancestry is looked at.
    """
    sources: dict[str, set[str]] = {}
    for name, recipe in _ancestry(recipes).items():
        if store.holds(name):
            targets = _targets(recipe.written)
            sources.setdefault(targets, set()).add(store.manifest(name)["source"])
    mixed = set()
    for targets, digests in sources.items():
        if len(digests) > 1:
            first = targets.partition(",")[0]
            mixed.add(first.rpartition(".")[2])
    return sorted(mixed)


def _targets(written: Mapping[str, Any]) -> str:
    """Return all functions that a written recipe calls, in one line."""
    flat = labels.flatten(written)
    return ", ".join(sorted({str(flat[key]) for key in flat if key.endswith("_target_")}))


def _kind(written: Mapping[str, Any]) -> str:
    """Return what decides a stage's cost: its function, and the format of soft targets.

    `teach Full`, for example.
    """
    targets = [written["_target_"], written.get("soft_targets", {}).get("_target_", "")]
    return " ".join(target.rpartition(".")[2] for target in targets if target)


def cost(store: Store, todo: Mapping[str, Recipe]) -> Iterator[str]:
    """Yield what running some stages is expected to cost in time, disk and memory.

    Each stage is counted as the median of the cached ones of its kind. Kinds that were never built
    are named instead.
    """
    seconds = 0.0
    size = 0.0
    memory = 0
    unknown = set()
    for recipe in todo.values():
        kind = _kind(recipe.written)
        names = store.names(recipe.stage)
        manifests = [store.manifest(name) for name in names if _kind(store.recipe(name)) == kind]
        if not manifests:
            unknown.add(kind)
            continue
        seconds += median(manifest["seconds"] for manifest in manifests)
        size += median(_folder_size(manifest) for manifest in manifests)
        memory = max(memory, *(manifest["peak_memory_mb"] for manifest in manifests))
    free = shutil.disk_usage(store.root if store.root.exists() else ".").free
    note = f"; never built here, so not counted: {', '.join(sorted(unknown))}" if unknown else ""
    yield (
        f"{len(todo)} stages to run: about {seconds:.0f} s of one worker, "
        f"{size / 1e6:.0f} MB of disk ({free / 1e6:,.0f} MB are free), "
        f"{memory:,} MB of memory a worker{note}"
    )


def _folder_size(manifest: Mapping[str, Any]) -> int:
    """Return the bytes of an output, from its manifest."""
    return sum(entry["bytes"] for entry in manifest["files"].values())
