"""A recipe is a resolved stage: its function and its arguments, in which parents are recipes again.

`Recipe.hash` is the identity of a stage's output; with the stage's name before it, it names the
folder in the store. Knows plain values only: no files, no Hydra, no torch, nothing else of ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# In a written recipe, {_store_: cpt-1a2b3c4d5e6f} stands for the recipe of that folder.
PARENT = "_store_"


@dataclass(frozen=True, eq=False)
class Recipe:
    """A stage to run.

    Attributes:
        target: Dotted path of the stage's function.
        arguments: Its arguments: plain values, options (dicts with a `_target_`) and parents
            (recipes), also inside lists and dicts.
    """

    target: str
    arguments: dict[str, Any] = field(repr=False)

    @property
    def stage(self) -> str:
        """The stage's declared name: the last part of its dotted path."""
        return declared_name(self.target)

    @cached_property
    def name(self) -> str:
        """The name of the output's folder, `<stage>-<hash>`."""
        return f"{self.stage}-{self.hash}"

    @cached_property
    def hash(self) -> str:
        """The identity of the output: 12 hexadecimal digits over the whole ancestry.

        Parents enter by their names, which end in their own hashes. Functions enter by their
        declared names, so code may move without renaming a folder. A function that changes its
        meaning raises the integer `revision` of its node in conf/.
        """
        identity = _with_declared_names(self.written)
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def written(self) -> dict[str, Any]:
        """The recipe as plain values, as recipe.yaml holds it: parents by name, 1.0 as 1."""
        arguments = {key: _plain(value) for key, value in self.arguments.items()}
        return {"_target_": self.target, **arguments}

    @cached_property
    def parents(self) -> dict[str, Recipe]:
        """The recipes that the stage reads, by dotted argument path, in the arguments' order."""
        return dict(_parents("", self.arguments))

    def ancestry(self) -> dict[str, Recipe]:
        """Return every recipe that this one needs by name, parents first and itself last."""
        recipes: dict[str, Recipe] = {}
        for parent in self.parents.values():
            recipes.update(parent.ancestry())
        recipes[self.name] = self
        return recipes


def declared_name(target: str) -> str:
    """Return the last part of a dotted path, by which the project knows a function or class."""
    return target.rpartition(".")[2]


def _parents(path: str, value: Any) -> Iterator[tuple[str, Recipe]]:
    if isinstance(value, Recipe):
        yield path, value
        return
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from _parents(f"{path}.{key}".lstrip("."), inner)


def _plain(value: Any) -> Any:
    """Write parents by name, and 1.0 as 1, so that both spellings give one recipe."""
    if isinstance(value, Recipe):
        return {PARENT: value.name}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _with_declared_names(plain: Any) -> Any:
    """Replace each `_target_` of a written recipe by its declared name."""
    if isinstance(plain, list):
        return [_with_declared_names(inner) for inner in plain]
    if not isinstance(plain, dict):
        return plain
    identity = {key: _with_declared_names(inner) for key, inner in plain.items()}
    if "_target_" in plain:
        identity["_target_"] = declared_name(plain["_target_"])
    return identity


def revive(written: dict[str, dict[str, Any]]) -> dict[str, Recipe]:
    """Return recipes from their written forms.

    Args:
        written: Written recipes by name, parents before the recipes that read them. A parent that
            is not among them becomes a recipe of which only the name is known.
    """
    recipes: dict[str, Recipe] = {}

    def revive_value(plain: Any) -> Any:
        if isinstance(plain, list):
            return [revive_value(inner) for inner in plain]
        if not isinstance(plain, dict):
            return plain
        if set(plain) == {PARENT}:
            name = plain[PARENT]
            return recipes[name] if name in recipes else _known_by_name(name)
        return {key: revive_value(inner) for key, inner in plain.items()}

    for name, plain in written.items():
        arguments = {key: revive_value(value) for key, value in plain.items() if key != "_target_"}
        recipes[name] = Recipe(plain["_target_"], arguments)
    return recipes


def _known_by_name(name: str) -> Recipe:
    """Return a stand-in for a recipe whose folder is gone; its descendants can still be read."""
    recipe = Recipe(name.rpartition("-")[0], {})
    recipe.__dict__["name"] = name
    return recipe
