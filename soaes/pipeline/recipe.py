"""A recipe is a resolved stage; its hash names the folder that holds the stage's output; the store is the folder of them all.

Knows files and hashes only: no Hydra, no torch, nothing else of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

PARENT = (
    "_store_"  # in a written recipe, {_store_: cpt-1a2b3c4d5e} stands for the recipe of that folder
)


@dataclass(frozen=True, eq=False)
class Recipe:
    """A stage to run: the dotted path of its function and its arguments, in which parents are recipes again."""

    target: str
    arguments: dict[str, Any] = field(repr=False)

    @property
    def stage(self) -> str:
        return self.target.rpartition(".")[2]

    @cached_property
    def name(self) -> str:
        """`<stage>-<hash>`: the name of the folder that holds the output."""
        return f"{self.stage}-{self.hash}"

    @cached_property
    def hash(self) -> str:
        """One hash covers the whole ancestry, because parents enter by their names.

        Functions enter by their declared names, the last part of each `_target_`: code may move without renaming a folder. A function
        that changes its meaning raises the integer `revision` of its node in conf/."""
        text = json.dumps(_declared(self.written), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def written(self) -> dict[str, Any]:
        return {
            "_target_": self.target,
            **{key: _plain(value) for key, value in self.arguments.items()},
        }

    @cached_property
    def parents(self) -> dict[str, Recipe]:
        """Argument path -> recipe, in the order of the arguments."""
        return dict(_parents("", self.arguments))

    def ancestry(self) -> dict[str, Recipe]:
        """Every recipe that this one needs, itself last, by name."""
        found: dict[str, Recipe] = {}
        for parent in self.parents.values():
            found.update(parent.ancestry())
        return found | {self.name: self}


def _parents(path: str, value: Any) -> Iterator[tuple[str, Recipe]]:
    if isinstance(value, Recipe):
        yield path, value
    elif isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _parents(f"{path}.{key}".lstrip("."), inner)


def _plain(value: Any) -> Any:
    """What is hashed and written: parents by name, and 1.0 as 1, so that both spell one recipe."""
    if isinstance(value, Recipe):
        return {PARENT: value.name}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _declared(plain: Any) -> Any:
    """What is hashed of a written recipe: each `_target_` by its last part, wherever its code lies."""
    if isinstance(plain, list):
        return [_declared(inner) for inner in plain]
    if not isinstance(plain, dict):
        return plain
    return {
        key: inner.rpartition(".")[2] if key == "_target_" else _declared(inner)
        for key, inner in plain.items()
    }


def revive(written: dict[str, dict[str, Any]]) -> dict[str, Recipe]:
    """Recipes from their written forms, given parents first."""
    known: dict[str, Recipe] = {}

    def value(plain: Any) -> Any:
        if isinstance(plain, dict):
            return (
                known.get(plain[PARENT]) or _lost(plain[PARENT])
                if set(plain) == {PARENT}
                else {key: value(inner) for key, inner in plain.items()}
            )
        return [value(inner) for inner in plain] if isinstance(plain, list) else plain

    for name, text in written.items():
        known[name] = Recipe(
            text["_target_"],
            {key: value(inner) for key, inner in text.items() if key != "_target_"},
        )
    return known


def _lost(name: str) -> Recipe:
    """A recipe of which only the name is known, because its folder is gone: enough for whoever reads what was built from it."""
    lost = Recipe(name.rpartition("-")[0], {})
    lost.__dict__["name"] = name
    return lost
