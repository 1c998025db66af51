"""Tell whether committed tables are still what conf/ says, by the recipes.json beside them.

The recipe of a speed holds the machine and the library that it was measured with, which another
machine cannot compose: it is recorded by its name without these two, so that everything else, its
ancestry included, is compared. The first seed stands for all: seeds share every other key. Composes
recipes and builds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soaes.pipeline import command_line, compose, conf_folders, store
from soaes.pipeline.recipe import Recipe
from soaes.report import results, table_spec
from soaes.report.results import Table

# the nodes of how a stage is run, not of what it computes: they are in no recipe
EXECUTION_KEYS = ("runtime", "logger")
MEASURED_ON = ("machine", "library")  # arguments of a speed that another machine cannot compose

Names = dict[str, dict[str, list[str]]]  # row -> seed -> names of its recipes


def write(tables: Mapping[str, Table], overrides: list[str], folder: Path) -> None:
    """Write recipes.json: {scale, overrides, config_dir, tables: {table: {row: {seed: [recipe]}}}}.

    Args:
        tables: What was read, by name.
        overrides: The command line that it was read with.
        folder: Where the tables lie.
    """
    record = {
        "scale": compose.chosen_option(overrides, "scale"),
        "overrides": [word for word in overrides if not is_execution(word)],
        "config_dir": conf_folders.given(),
        "tables": {name: _recipe_names(table) for name, table in tables.items()},
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    store.write_text(folder / "recipes.json", text + "\n")


def is_execution(override: str) -> bool:
    """Tell whether an override says how a stage is run, not what it computes."""
    (parsed,) = command_line.parse([override])
    return command_line.key_of(parsed).partition(".")[0] in EXECUTION_KEYS


def command(overrides: list[str]) -> str:
    """Write down the command that builds what a job has built, however it was run."""
    return conf_folders.command([word for word in overrides if not is_execution(word)])


def _recipe_names(table: Table) -> Names:
    names: Names = {}
    for key, row in table.rows.items():
        if row.recipes:
            names[key] = {
                str(seed): [key_of(goal) for goal in goals.values()]
                for seed, goals in row.recipes.items()
            }
    return names


def key_of(recipe: Recipe) -> str:
    """Name a recipe without the machine and the library that it was measured with."""
    arguments = {key: value for key, value in recipe.arguments.items() if key not in MEASURED_ON}
    return Recipe(recipe.target, arguments).name


def check(folders: list[Path]) -> tuple[list[str], bool]:
    """Compare committed tables with what their overrides compose to today.

    Args:
        folders: Folders with a recipes.json.

    Returns:
        A line for each table, and whether any is stale.

    Raises:
        ValueError: A folder has no recipes.json, or was made with a folder of settings that this
            process does not look into.
    """
    lines, stale = [], False
    for folder in folders:
        record = _record(folder / "recipes.json")
        own = record.get("config_dir")
        if own and own != conf_folders.given():
            raise ValueError(
                f"{folder} was made with --config-dir {own}; ask "
                f"`python -m soaes.table --config-dir {own} --stale {folder}`"
            )
        for name, rows in record["tables"].items():
            state = "as conf/ has it"
            if differing := _differing(name, rows, record["overrides"]):
                stale = True
                state = f"stale, the recipes of these rows have changed: {', '.join(differing)}"
            lines.append(f"{folder}/{name}: {state}")
    return lines, stale


def _record(path: Path) -> dict[str, Any]:
    if not path.exists():
        command = f"`python -m soaes.table --out {path.parent}`"
        raise ValueError(f"{path} does not exist; {command} writes it beside the tables")
    return store.read_json(path)


def _differing(name: str, rows: Names, overrides: list[str]) -> list[str]:
    """Rows whose recipes, of the first seed, are not today's; also those that are new or gone."""
    if name not in table_spec.table_names():
        return list(rows)
    spec = table_spec.load(name)
    words = results.at_seeds(overrides, 1)
    today = {}
    for key, row in spec.rows.items():
        by_seed = results.row_recipes(key, row, words, spec.few_seeds)
        today[key] = [key_of(goal) for goals in by_seed.values() for goal in goals.values()]
    recorded = {key: next(iter(seeds.values())) for key, seeds in rows.items()}
    keys = dict.fromkeys([*recorded, *today])
    return [key for key in keys if recorded.get(key, []) != today.get(key, [])]
