"""The steps of a curation, as the recipes of its stages: which they are, and what each wrote.

A step reads the folder of the one before as its `documents` (soaes.stages.corpus); the stage
`files` comes last and makes the data folder. Knows recipes and the store; no texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, read_json

STEPS = ("read", "clean", "deduplicate", "decontaminate", "score", "select")
FILES = "files"  # the stage that makes the data folder, which is no step of its own


@dataclass(frozen=True)
class Step:
    """A step that is built.

    Attributes:
        recipe: Its recipe.
        folder: Its folder in the store.
    """

    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """Its name, such as `clean`."""
        return self.recipe.stage

    def json(self, name: str) -> Any:
        """Return the content of one of its files."""
        return read_json(self.folder / name)


def curated(recipe: Recipe) -> Recipe | None:
    """Return the last stage of curation behind a goal; None if it needs no documents of a user."""
    stages = {parent.stage: parent for parent in recipe.ancestry().values()}
    names = [name for name in (FILES, *reversed(STEPS)) if name in stages]
    return stages[names[0]] if "read" in stages else None


def built_steps(store: Store, last: Recipe) -> list[Step]:
    """Return the steps up to a stage that are built, the first one first.

    Args:
        store: Where they are.
        last: A stage of curation, as of `curated`.
    """
    steps = []
    for recipe in _chain(last):
        if recipe.stage != FILES and store.holds(recipe.name):
            steps.append(Step(recipe, store.folder(recipe.name)))
    return steps


def unbuilt(store: Store, last: Recipe) -> list[str]:
    """Return the names of the stages up to one that are not built."""
    return [recipe.stage for recipe in _chain(last) if not store.holds(recipe.name)]


def _chain(last: Recipe) -> Sequence[Recipe]:
    """Return a stage of curation and those before it, the first one first."""
    chain = [last]
    while "documents" in chain[0].parents:
        chain.insert(0, chain[0].parents["documents"])
    return chain
