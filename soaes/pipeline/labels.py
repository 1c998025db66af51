"""Describe recipes in words: labels of models, differences, lineage trees. Knows recipes only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from soaes.pipeline.recipe import PARENT, Recipe

SFT = {
    ("dialogue",): "stage-1 SFT",
    ("qa",): "stage-2 SFT",
    ("dialogue", "qa"): "stage-1&2 joint SFT",
}


# Stages whose output is a model, which `label` names by the steps of its ancestry.
MODELS = frozenset(
    {"fetch", "local_model", "pretrain", "instruct", "cpt", "sft", "distill", "export"}
)


def label(model: Recipe) -> str:
    """Name a model by the steps of its ancestry: `Base 2x64 + CPT + stage-2 SFT`."""
    arguments = model.arguments
    if not arguments:  # its folder is gone, and its name is all that is known
        return model.name
    if model.stage == "fetch":
        return arguments["repo"].rpartition("/")[2]
    if model.stage == "local_model":
        content = arguments["content"]
        shape = f"{content['type']} {content['layers']}x{content['width']}"
        return f"{shape} ({content['digest'][:4]})"
    if model.stage == "pretrain":
        return f"Base {arguments['layers']}x{arguments['width']}"
    if model.stage == "export":
        return label(arguments["model"])
    parent = label(arguments["parent"])
    if model.stage == "instruct" and "Base" in parent:
        return parent.replace("Base", "Instruct")
    return f"{parent} + {step(model)}"


def step(model: Recipe) -> str:
    """Name the last step of a model's ancestry: `CPT`, `stage-2 SFT`; `base` for the first."""
    if model.stage == "sft":
        rows = model.arguments.get("rows")
        sources = rows.arguments.get("sources") if isinstance(rows, Recipe) else None
        if sources is None:  # their folder is gone
            return "SFT"
        return SFT.get(tuple(sources), "SFT on " + "+".join(sources))
    words = {
        "fetch": "base",
        "local_model": "base",
        "pretrain": "base",
        "instruct": "general SFT",
        "cpt": "CPT",
        "distill": "distillation",
    }
    return words.get(model.stage, model.stage)


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Flatten a written recipe to dotted keys: `{"optim.lr": 0.001, "parent": "cpt-1a2b"}`."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    if set(value) == {PARENT}:
        return {path: value[PARENT]}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(flatten(inner, f"{path}.{key}".lstrip(".")))
    return flat


Written = dict[str, Any]  # a recipe as recipe.yaml has it


def parents(written: Any) -> Iterator[str]:
    """Yield the names of the parents in a written recipe."""
    if isinstance(written, dict):
        if set(written) == {PARENT}:
            yield written[PARENT]
            return
        for inner in written.values():
            yield from parents(inner)
    elif isinstance(written, list):
        for inner in written:
            yield from parents(inner)


def differences(one: Written, other: Written) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two written recipes differ, with both values."""
    a, b = flatten(one), flatten(other)
    pairs = {}
    for key in sorted(a.keys() | b.keys()):
        pair = a.get(key), b.get(key)
        if pair[0] != pair[1]:
            pairs[key] = pair
    return pairs


def lineage_tree(
    recipe: Recipe,
    seen: set[str] | None = None,
    indent: int = 0,
) -> Iterator[str]:
    """Yield the lineage of a recipe, one line per stage.

    Args:
        recipe: The recipe at the root of the tree.
        seen: Names of the recipes that were shown in full; they are not repeated.
        indent: Depth of the root, in steps of two spaces.
    """
    seen = set() if seen is None else seen
    repeated = recipe.name in seen
    seen.add(recipe.name)
    words = "(above)" if repeated else _own_words(recipe)
    yield f"{'  ' * indent}{recipe.name}  {words}"
    if repeated:
        return
    for path, parent in recipe.parents.items():
        yield f"{'  ' * (indent + 1)}{path}:"
        yield from lineage_tree(parent, seen, indent + 2)


def own_arguments(recipe: Recipe) -> dict[str, Any]:
    """Return the arguments of a stage by dotted key, without its parents."""
    flat = flatten(recipe.written)
    del flat["_target_"]
    for path in recipe.parents:
        flat.pop(path, None)
    return flat


def _own_words(recipe: Recipe) -> str:
    """Format the arguments of a stage without its parents: `alpha=0.5  tau=2  seed=0`."""
    return "  ".join(f"{key}={value}" for key, value in own_arguments(recipe).items())
