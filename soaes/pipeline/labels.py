"""From recipes to words: labels, differences, family trees. Knows recipes only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from soaes.pipeline.recipe import PARENT, Recipe

SFT = {
    ("dialogue",): "stage-1 SFT",
    ("qa",): "stage-2 SFT",
    ("dialogue", "qa"): "stage-1&2 joint SFT",
}


def label(model: Recipe) -> str:
    """`Base 2x64 + CPT + stage-2 SFT`: the steps of a model's ancestry, never typed."""
    arguments = model.arguments
    if model.stage == "fetch":
        return arguments["repo"].rpartition("/")[2]
    if model.stage == "pretrain":
        return f"Base {arguments['layers']}x{arguments['width']}"
    if model.stage == "export":
        return label(arguments["model"])
    before = label(arguments["parent"])
    if model.stage == "cpt":
        return f"{before} + CPT"
    if model.stage == "distill":
        return f"{before} + distillation"
    if model.stage == "instruct":
        return before.replace("Base", "Instruct")
    reads = arguments["rows"].arguments["sources"]
    return f"{before} + {SFT.get(tuple(reads), 'SFT on ' + '+'.join(reads))}"


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """`{"optim.lr": 0.001, "parent": "cpt-1a2b"}` of a written recipe."""
    if isinstance(value, dict) and set(value) == {PARENT}:
        return {path: value[PARENT]}
    if isinstance(value, dict) and value:
        return {
            key: inner
            for name, part in value.items()
            for key, inner in flatten(part, f"{path}.{name}".lstrip(".")).items()
        }
    return {path: value}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys in which two written recipes differ -> (one's value, other's value)."""
    a, b = flatten(one), flatten(other)
    return {
        key: (a.get(key), b.get(key))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    }


def lineage_tree(recipe: Recipe, seen: set[str] | None = None, indent: int = 0) -> Iterator[str]:
    """The whole lineage of a recipe, one line a stage, each told once."""
    seen = set() if seen is None else seen
    scalars = {
        key: value
        for key, value in flatten(recipe.written).items()
        if key != "_target_"
        and not any(key == path or key.startswith(path + ".") for path in recipe.parents)
    }
    again = recipe.name in seen
    seen.add(recipe.name)
    words = "(above)" if again else "  ".join(f"{key}={value}" for key, value in scalars.items())
    yield f"{'  ' * indent}{recipe.name}  {words}"
    if not again:
        for path, parent in recipe.parents.items():
            yield f"{'  ' * (indent + 1)}{path}:"
            yield from lineage_tree(parent, seen, indent + 2)
