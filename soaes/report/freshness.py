"""Whether committed tables are still what conf/ says: recipes.json beside them names what their cells were read from.

A speed's recipe holds the machine and the library that it was measured with, which another machine cannot compose: it is recorded by
its name without these two (`machine`, `library`), so that all else, its ancestry included, is compared. The first seed stands for all:
seeds share every other key. Composes recipes; builds nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from soaes.pipeline import compose
from soaes.pipeline.recipe import Recipe
from soaes.report import results
from soaes.report.results import Table

HERE = (
    "runtime.",
    "runtime=",
    "logger=",
    "logger.",
    "wandb.",
)  # overrides of how a stage is run: they are in no recipe


def write(tables: dict[str, Table], overrides: list[str], folder: Path) -> None:
    """recipes.json: {tables: {table: {row: {seed: [recipe]}}}, scale, overrides} of what was read."""
    read = {
        name: {
            key: {
                str(seed): [key_of(goal) for goal in goals] for seed, goals in line.recipes.items()
            }
            for key, line in table.lines.items()
            if line.recipes
        }
        for name, table in tables.items()
    }
    told = {
        "scale": compose.chosen_option(overrides, "scale"),
        "overrides": [word for word in overrides if not word.startswith(HERE)],
        "tables": read,
    }
    (folder / "recipes.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def key_of(recipe: Recipe) -> str:
    arguments = {
        key: value for key, value in recipe.arguments.items() if key not in ("machine", "library")
    }
    return Recipe(recipe.target, arguments).name


def check(folders: list[Path]) -> tuple[list[str], bool]:
    """A line a table, and whether any differs from what the same overrides compose to today."""
    lines, stale = [], False
    for folder in folders:
        told = _told(folder / "recipes.json")
        for name, rows in told["tables"].items():
            differing = _differing(name, rows, told["overrides"])
            stale = stale or bool(differing)
            lines.append(
                f"{folder}/{name}: "
                + (
                    f"stale, its recipes are others now: {', '.join(differing)}"
                    if differing
                    else "as conf/ has it"
                )
            )
    return lines, stale


def _told(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(
            f"{path}: there is none; `python -m soaes.table --out {path.parent}` writes it beside the tables"
        )
    return json.loads(path.read_text())


def _differing(name: str, rows: dict[str, dict[str, list[str]]], overrides: list[str]) -> list[str]:
    """Rows whose recipes, of the first seed, are not today's; also those that are new or gone."""
    if name not in results.table_names():
        return list(rows)
    described, words = results.table_spec(name)["rows"], results.first_seed(overrides)
    today = {
        key: [
            key_of(goal)
            for goals in results.row_recipes(key, row, words).values()
            for goal in goals
        ]
        for key, row in described.items()
    }
    told = {key: next(iter(seeds.values())) for key, seeds in rows.items()}
    return [
        key for key in dict.fromkeys([*told, *today]) if told.get(key, []) != today.get(key, [])
    ]
