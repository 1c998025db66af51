"""Look ahead: which stages a set of rows would run, which keys tell each from its nearest cached sibling, and the bill.

Reads the store; builds nothing, imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from statistics import median
from typing import Any

from soaes.pipeline import labels
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.scheduler import missing
from soaes.pipeline.store import Store


def plan(store: Store, recipes: list[Recipe]) -> Iterator[str]:
    """Lines: a stage each, cached or to run, then what running them is expected to cost."""
    every = {name: recipe for goal in recipes for name, recipe in goal.ancestry().items()}
    todo = missing(store, recipes)
    for name, recipe in every.items():
        if name in todo:
            yield f"  to run  {name}{_difference(store, recipe)}"
        else:
            yield f"  {'cached' if store.holds(name) else 'spared'}  {name}"
    yield from cost(store, todo)
    if mixed_code(store, recipes):
        yield f"Warning: cached {', '.join(mixed_code(store, recipes))} come from different code"


def _difference(store: Store, recipe: Recipe) -> str:
    """The keys in which a stage differs from the cached stage of its kind that is most like it."""
    siblings = [
        (labels.differences(recipe.written, store.recipe(name)), name)
        for name in store.names(recipe.stage)
    ]
    if not siblings:
        return ""
    keys, name = min(siblings, key=lambda pair: len(pair[0]))
    return f"  unlike {name}: " + ", ".join(
        f"{key} {here} instead of {there}" for key, (here, there) in keys.items()
    )


def mixed_code(store: Store, recipes: list[Recipe]) -> list[str]:
    """Stages in the ancestry of some rows that were built by more than one state of the code they call."""
    sources: dict[str, set[str]] = {}
    for name, recipe in {
        name: recipe for goal in recipes for name, recipe in goal.ancestry().items()
    }.items():
        if store.holds(name):
            calls = ", ".join(
                sorted(
                    {
                        str(value)
                        for key, value in labels.flatten(recipe.written).items()
                        if key.endswith("_target_")
                    }
                )
            )
            sources.setdefault(calls, set()).add(store.manifest(name)["source"])
    return sorted(
        {
            calls.partition(",")[0].rpartition(".")[2]
            for calls, seen in sources.items()
            if len(seen) > 1
        }
    )


def _kind(written: dict[str, Any]) -> str:
    """A stage's function and, of a teacher store, its format, which decides its size: `teach Full`."""
    return " ".join(
        target.rpartition(".")[2]
        for target in (written["_target_"], written.get("soft_targets", {}).get("_target_", ""))
        if target
    )


def cost(store: Store, todo: dict[str, Recipe]) -> Iterator[str]:
    """Time, disk and memory by what cached stages of the same kind took; kinds never built are named."""
    seconds, size, memory, unknown = 0.0, 0, 0, set()
    for recipe in todo.values():
        kind, built = _kind(recipe.written), store.names(recipe.stage)
        made = [store.manifest(name) for name in built if _kind(store.recipe(name)) == kind]
        if not made:
            unknown.add(kind)
            continue
        memory = max(memory, *(manifest["peak_memory_mb"] for manifest in made))
        seconds += median(manifest["seconds"] for manifest in made)
        size += median(
            sum(entry["bytes"] for entry in manifest["files"].values()) for manifest in made
        )
    free = shutil.disk_usage(store.root if store.root.exists() else ".").free
    guess = f"; never built here, so not counted: {', '.join(sorted(unknown))}" if unknown else ""
    yield (
        f"{len(todo)} stages to run: about {seconds:.0f} s of one worker, {size / 1e6:.0f} MB of disk ({free / 1e6:,.0f} MB are free), "
        f"{memory:,} MB of memory a worker{guess}"
    )
