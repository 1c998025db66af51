"""Read the store as the paper's tables: `python -m soaes.table scale=smoke` prints them all, the paper's value beside ours.

A table recomposes its grids and reads exactly the folders that they name. Builds nothing, imports no torch.
`--only table2` reads one; `--why table2.full` tells where a cell comes from, down to the first document."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from soaes import floors, grid, lineage
from soaes.recipe import Recipe, Store
from soaes.render import Line, Table, render

READ = Path(__file__).parent.parent / "experiments"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soaes.table", description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as given to soaes.run, e.g. scale=smoke")
    parser.add_argument("--only", nargs="*", help="tables to read, e.g. table2")
    parser.add_argument("--why", metavar="TABLE.ROW", help="the recipe and the whole lineage of a row, e.g. table2.full")
    parser.add_argument("--out", type=Path, help="where Markdown, CSV and LaTeX files go; tables/SCALE of the store by default")
    arguments = parser.parse_args()
    try:
        sys.exit(_print(arguments.overrides, arguments.only, arguments.why, arguments.out))
    except ValueError as error:
        sys.exit(f"error: {error}")


def _print(overrides: list[str], only: list[str] | None, why: str | None, out: Path | None) -> int:
    known = sorted(path.stem for path in READ.glob("table*.yaml"))
    for name in [*(only or []), *([why.partition(".")[0]] if why else [])]:
        if name not in known:
            raise ValueError(f"{name}: there is no such table; {grid.nearest(name, known)}")
    wanted = [why.partition(".")[0]] if why else only or known
    tables = {name: read(name, overrides) for name in _with_claimed(wanted)}
    if why:
        print("\n".join(explain(tables, *why.partition(".")[::2], overrides)))
        return 0
    store = _store(overrides)
    for name in wanted:
        print(render(tables, name, store, out or store.root / "tables" / grid.choice(overrides, "scale")) + "\n")
    smoke = grid.choice(overrides, "scale") == "smoke" and grid.choice(overrides, "data") == "world"
    found = floors.check(tables, store) if smoke and not only else []
    for text, holds in found:
        print(f"floor {'holds' if holds else 'FAILS'}: {text}")
    return 0 if all(holds for _, holds in found) else 1


def _with_claimed(names: list[str]) -> list[str]:
    """The tables, and those whose rows their claims speak of."""
    claims = [term for name in names for claim in _spec(name)["claims"].values() for pair in claim["pairs"] for term in pair]
    return sorted({*names, *(term.split(".")[0] for term in claims if term.startswith("table"))})


def _spec(name: str) -> dict[str, Any]:
    return yaml.safe_load((READ / f"{name}.yaml").read_text())


def read(name: str, overrides: list[str]) -> Table:
    """A table as the store has it now. Cells that are not built say why."""
    spec = _spec(name)
    lines = {key: _line(key, row, spec, tuple(overrides)) for key, row in spec["rows"].items()}
    return Table(spec["title"], spec["columns"], lines, spec["claims"])


def _line(key: str, row: dict[str, Any], spec: dict[str, Any], overrides: tuple[str, ...]) -> Line:
    paper = row.get("paper", {})
    if row["grid"] is None:
        return Line(paper["name"], {}, {}, paper, "the paper's only", "", None)
    wanted = {key: str(value) for key, value in row["when"].items()}
    found = [item for item in _rows(row["grid"], overrides) if wanted.items() <= item.overrides.items()]
    if len(found) > 1:
        raise ValueError(f"{len(found)} rows of {row['grid']} are {key}, a table shows one: give one value to each override, e.g. seed=0")
    if not found:
        return Line(paper.get("name", key), {}, {}, paper, "not swept", f"{key} is not in the grid that these overrides leave", None)
    store, recipe = _store(overrides), found[0].recipe
    settings = {title: _at(recipe, path) for title, path in spec["settings"].items()}
    note = f" ({row['note']})" if "note" in row else ""
    return Line(_label(recipe, spec["label"]) + note, settings, store.metrics(recipe.name) if store.holds(recipe.name) else {}, paper,
                *_missing(store, recipe), recipe)


@cache
def _rows(experiment: str, overrides: tuple[str, ...]) -> list[grid.Row]:
    return grid.rows([f"experiment={experiment}", *overrides])


def _store(overrides: Any) -> Store:
    return Store(Path(_rows("table2", tuple(overrides))[0].runtime["store"]))


def _missing(store: Store, recipe: Recipe) -> tuple[str, str]:
    """Why a goal is not there: a stage of its ancestry failed, and which, or nobody has built it yet."""
    if store.holds(recipe.name):
        return "", ""
    reasons = [store.unfinished(name) / "reason.txt" for name in recipe.ancestry() if not store.holds(name)]
    failed = [f"{path.parent.name} failed: {path.read_text()}" for path in reasons if path.exists()]
    return ("failed", failed[0]) if failed else ("not built", "")


def _at(recipe: Recipe, path: str) -> str:
    """A setting by its path through the recipe and its parents, `-` where the row has no such thing."""
    value: Any = recipe
    for part in path.split("."):
        arguments = value.arguments if isinstance(value, Recipe) else value
        value = arguments.get(part) if isinstance(arguments, dict) else None
    return "-" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)


DECODERS = {"Autoregressive": "Autoregression", "Speculative": "Draft model", "PromptLookup": "Prompt lookup"}


def _label(recipe: Recipe, path: str) -> str:
    value = recipe.arguments[path]
    if isinstance(value, Recipe):
        return lineage.label(value)
    return "None" if value is None else DECODERS[value["_target_"].rpartition(".")[2]]


def explain(tables: dict[str, Table], name: str, row: str, overrides: list[str]) -> list[str]:
    """Where the cells of a row come from: its folder, the code and machine that made it, and its lineage."""
    row, _, column = row.partition(".")
    if row not in tables[name].lines:
        raise ValueError(f"{name}.{row}: there is no such row; {grid.nearest(row, list(tables[name].lines))}")
    line, store = tables[name].lines[row], _store(overrides)
    if line.recipe is None:
        return [f"{line.label}: {line.reason or line.missing}"]
    made = store.manifest(line.recipe.name) if not line.missing else {}
    about = {key: made[key] for key in ("made", "seconds", "commit", "machine") if key in made}
    value = [f"{column} = {line.values.get(column)}"] if column else []
    return [line.label, *value, f"folder {store.folder(line.recipe.name)}  {line.reason or line.missing}", f"{about}", "", *lineage.tree(line.recipe)]


if __name__ == "__main__":
    main()
