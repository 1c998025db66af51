"""From a composed Hydra configuration to recipes, and from recipes to words: labels, differences, family trees.

Knows nodes and recipes only: it builds nothing and imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from soaes.recipe import PARENT, Recipe

STAGES = "soaes.stages."  # a node whose _target_ lies here is a stage; every other _target_ is an option of one
OURS = ("soaes.", "pytorch_lightning.strategies.")  # what a configuration may call: Hydra itself would call anything


def recipe(cfg: DictConfig, key: str) -> Recipe:
    """The recipe of the stage at a node, e.g. `target.cpt` or `evaluate`.

    ValueError names the node and what to set when the key is unknown or something it needs is."""
    try:
        found = _value(_select(cfg, key), {})
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key or key} has no value; set it on the command line or in the scale") from None
    except InterpolationResolutionError as error:
        raise ValueError(f"{error.full_key or key}: {str(error).splitlines()[0]}{suggest(cfg, str(error))}") from None
    if not isinstance(found, Recipe):
        raise ValueError(f"{key} is not a stage but {type(found).__name__}; stages: {', '.join(stages(cfg))}")
    return found


def ours(target: str) -> str:
    """A `_target_` that may be called; ValueError for any other."""
    if not str(target).startswith(OURS):
        raise ValueError(f"_target_: {target} is not ours to call; it must start with {' or '.join(OURS)}")
    return target


def _select(cfg: DictConfig, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            raise ValueError(f"there is no node {key!r}{suggest(cfg, key)}")
        node = node[part]
    return node


def suggest(cfg: DictConfig, text: str) -> str:
    """`; did you mean ...?` for the nearest stage keys to a misspelt one, or the list of stages."""
    known = list(stages(cfg))
    words = [word.strip("'\"`") for word in text.replace("\n", " ").split()]
    near = [match for word in words for match in get_close_matches(word, known, 1, 0.6)]
    return f"; did you mean {near[0]}?" if near else f"; stages: {', '.join(known)}"


def stages(cfg: DictConfig) -> Iterator[str]:
    """Keys of every stage node, as they may be given to goal= and subject=."""
    for path, node in _walk("", cfg):
        if "_target_" in node and str(node._get_node("_target_")).startswith(STAGES):
            yield path
        for key in node:
            inner = node._get_node(key)
            if inner._is_interpolation() and path in ("target", "draft"):
                yield f"{path}.{key}"


def keys(cfg: DictConfig) -> list[str]:
    """Every key that the command line may override."""
    return [f"{path}.{key}".lstrip(".") for path, node in _walk("", cfg) for key in node]


def _walk(path: str, node: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    yield path, node
    for key in node:
        inner = node._get_node(key)
        if isinstance(inner, DictConfig) and not inner._is_interpolation() and not inner._is_missing() and not inner._is_none():
            yield from _walk(f"{path}.{key}".lstrip("."), inner)


def _value(node: Any, seen: dict[int, Any]) -> Any:
    """A node as a plain value; stages become recipes, each resolved once however many read it."""
    if isinstance(node, ListConfig):
        return [_value(inner, seen) for inner in node]
    if not isinstance(node, DictConfig):
        return node
    if id(node) not in seen:
        plain = {str(key): _value(node[key], seen) for key in node}
        if ours(plain.get("_target_", "soaes.")).startswith(STAGES):
            plain = Recipe(plain.pop("_target_"), plain)
        seen[id(node)] = plain
    return seen[id(node)]


# ---------------------------------------------------------------- words about recipes

SFT = {("dialogue",): "stage-1 SFT", ("qa",): "stage-2 SFT", ("dialogue", "qa"): "stage-1&2 joint SFT"}


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
    reads = arguments["rows"].arguments["read"]
    return f"{before} + {SFT.get(tuple(reads), 'SFT on ' + '+'.join(reads))}"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """`{"optim.lr": 0.001, "parent": "cpt-1a2b"}` of a written recipe."""
    if isinstance(value, dict) and set(value) == {PARENT}:
        return {path: value[PARENT]}
    if isinstance(value, dict) and value:
        return {key: inner for name, part in value.items() for key, inner in flat(part, f"{path}.{name}".lstrip(".")).items()}
    return {path: value}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys in which two written recipes differ -> (one's value, other's value)."""
    a, b = flat(one), flat(other)
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def tree(recipe: Recipe, seen: set[str] | None = None, indent: int = 0) -> Iterator[str]:
    """The whole lineage of a recipe, one line a stage, each told once."""
    seen = set() if seen is None else seen
    scalars = {key: value for key, value in flat(recipe.written).items()
               if key != "_target_" and not any(key == path or key.startswith(path + ".") for path in recipe.parents)}
    again = recipe.name in seen
    seen.add(recipe.name)
    words = "(above)" if again else "  ".join(f"{key}={value}" for key, value in scalars.items())
    yield f"{'  ' * indent}{recipe.name}  {words}"
    if not again:
        for path, parent in recipe.parents.items():
            yield f"{'  ' * (indent + 1)}{path}:"
            yield from tree(parent, seen, indent + 2)

