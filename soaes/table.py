"""Read the store as the paper's tables: `python -m soaes.table scale=smoke` prints them all, the paper's value beside ours.

A table recomposes its grids and reads exactly the folders that they name. Builds nothing, imports no torch.
`seed=0,1,2` reads every row in these seeds; `--only table2` reads one table; `--why table2.full` tells where a cell comes from, down
to the first document; `--stale` compares committed tables with today's conf/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from soaes.pipeline import compose, labels
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report import freshness, index, plots, sanity_checks
from soaes.report.claims import terms
from soaes.report.markdown import write_table, write_verdicts
from soaes.report.results import EXPERIMENTS, Table, read_table, store_of, table_names, table_spec


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m soaes.table", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "overrides", nargs="*", help="as given to soaes.run, e.g. scale=smoke seed=0,1,2"
    )
    parser.add_argument("--only", nargs="*", help="tables to read, e.g. table2")
    parser.add_argument(
        "--why",
        metavar="TABLE.ROW",
        help="the recipe and the whole lineage of a row, e.g. table2.full",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where Markdown, CSV and LaTeX files go; tables/SCALE of the store by default",
    )
    parser.add_argument(
        "--stale",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="name the committed tables whose recipes are others now",
    )
    arguments = parser.parse_args()
    try:
        if arguments.stale is not None:
            sys.exit(_stale(arguments.stale))
        sys.exit(_print(arguments.overrides, arguments.only, arguments.why, arguments.out))
    except ValueError as error:
        sys.exit(f"error: {error}")


def _stale(folders: list[Path]) -> int:
    lines, found = freshness.check(
        folders or sorted(path.parent for path in EXPERIMENTS.glob("*/recipes.json"))
    )
    print(
        "\n".join(
            lines
            or [
                "no committed tables: `make publish` writes them, with the recipes.json that this compares"
            ]
        )
    )
    return 1 if found else 0


def _print(overrides: list[str], only: list[str] | None, why: str | None, out: Path | None) -> int:
    for name in [*(only or []), *([why.partition(".")[0]] if why else [])]:
        if name not in table_names():
            raise ValueError(
                f"{name}: there is no such table; {compose.nearest(name, table_names())}"
            )
    wanted = [why.partition(".")[0]] if why else only or table_names()
    tables = {name: read_table(name, overrides) for name in _with_claimed(wanted)}
    store, scale = store_of(overrides), compose.chosen_option(overrides, "scale")
    if why:
        print("\n".join(explain(tables, *why.partition(".")[::2], store)))
        return 0
    shown = only or [name for name in wanted if name.startswith("table") or _measured(tables[name])]
    folder = out or store.root / "tables" / scale
    for name in shown:
        print(
            write_table(
                tables,
                name,
                store,
                folder,
                _page(tables, name, overrides, scale, folder) if out else [],
            )
            + "\n"
        )
    if only:
        return 0
    tables = {name: tables[name] for name in shown}
    freshness.write(tables, overrides, folder)
    print(write_verdicts(tables, scale, folder) + "\n")
    if out and out.parent.resolve() == EXPERIMENTS:
        index.write(EXPERIMENTS)
    return (
        _floors(tables, store)
        if scale == "smoke" and compose.chosen_option(overrides, "data") == "world"
        else 0
    )


def _page(
    tables: dict[str, Table], name: str, overrides: list[str], scale: str, folder: Path
) -> list[str]:
    """What a published table has besides: the sweep that made it, a picture, and how to read it."""
    table, words = (
        tables[name],
        " ".join(word for word in overrides if not word.startswith(freshness.HERE)),
    )
    picture = plots.draw(tables, name, folder)
    clock = (
        ", timings in the first seed alone"
        if any(name.startswith("speed") for name in table.grids)
        else ""
    )
    command = f"Made by `python -m soaes.run experiment={','.join(table.grids)} {words}`{clock}."
    return [
        command,
        *([f"![{name}]({picture.name})"] if picture else []),
        *([table.reading[scale].strip()] if scale in table.reading else []),
    ]


def _floors(tables: dict[str, Table], store: Store) -> int:
    found = sanity_checks.check(tables, store)
    for text, holds in found:
        print(f"floor {'holds' if holds else 'FAILS'}: {text}")
    return 0 if all(holds for _, holds in found) else 1


def _measured(table: Table) -> bool:
    """A table beyond the paper's is shown once a row of it is built."""
    return any(line.measured for line in table.lines.values())


def _with_claimed(names: list[str]) -> list[str]:
    """The tables, and those whose rows their claims speak of."""
    sides = [
        pair
        for name in names
        for claim in table_spec(name)["claims"].values()
        for pair in claim["pairs"]
    ]
    return sorted(
        {
            *names,
            *(term.split(".")[0] for pair in sides for term in terms(pair) if term.count(".") == 2),
        }
    )


def explain(tables: dict[str, Table], name: str, row: str, store: Store) -> list[str]:
    """Where the cells of a row come from: by seed its folders and what made them, and the first seed's lineage."""
    row, _, column = row.partition(".")
    if row not in tables[name].lines:
        raise ValueError(
            f"{name}.{row}: there is no such row; {compose.nearest(row, list(tables[name].lines))}"
        )
    line = tables[name].lines[row]
    if not line.recipes:
        return [f"{line.label}: {line.reason or line.missing}"]
    value = [f"{column} = {line.values.get(column)}"] if column else []
    folders = [
        text
        for seed, goals in line.recipes.items()
        for goal in goals
        for text in _made(store, goal, f"seed {seed}: ")
    ]
    lineages = [
        text
        for goal in next(iter(line.recipes.values()))
        for text in ["", *labels.lineage_tree(goal)]
    ]
    return [line.label, *value, *([line.reason] if line.reason else []), *folders, *lineages]


def _made(store: Store, goal: Recipe, words: str) -> list[str]:
    if not store.holds(goal.name):
        return [f"{words}folder {store.folder(goal.name)}  not built"]
    made = store.manifest(goal.name)
    return [
        f"{words}folder {store.folder(goal.name)}",
        f"{ {key: made[key] for key in ('made', 'seconds', 'commit', 'machine') if key in made} }",
    ]


if __name__ == "__main__":
    main()
