"""Read the store as the paper's tables, the paper's values beside ours.

    python -m soaes.table scale=smoke                 every table and the verdicts
    python -m soaes.table scale=smoke --report        and the page that shows it all, report.html
    python -m soaes.table seed=0,1,2 --only table2    one table, each row over three seeds
    python -m soaes.table --why table2.full           where a row comes from, to the first document
    python -m soaes.table --stale                     committed tables that conf/ has left behind

A table composes its sweeps again and reads exactly the folders that they name. A terminal shows
what fits it; a pipe gets the Markdown, which is in files too. Builds nothing and imports no torch.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from soaes.pipeline import compose, conf_folders, labels
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, check_writable
from soaes.report import freshness, index, plots, sanity_checks, terminal, wandb_runs
from soaes.report.layout import styled, terminal_width
from soaes.report.markdown import write_table, write_verdicts
from soaes.report.page import record, render
from soaes.report.results import FEW_SEEDS, Table, existing_store_of, read_tables, shown_unasked
from soaes.report.table_spec import EXPERIMENTS, check_row, check_table, table_names

Tables = Mapping[str, Table]


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has gone, as `| head`, ends it
    arguments = _parser().parse_args()
    with one_line_errors():
        conf_folders.use(arguments.config_dir)
        if arguments.stale is not None:
            status = _print_stale(arguments.stale)
        elif arguments.why:
            status = _print_why(arguments.overrides, arguments.why)
        else:
            words = [word for word in arguments.only or [] if "=" in word]  # behind --only
            only = [word for word in arguments.only or [] if word not in words]
            names = [name for word in only for name in word.split(",") if name]
            overrides = [*arguments.overrides, *words]
            status = _print_tables(overrides, names, arguments.out, arguments.report)
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m soaes.table", description=summary)
    parser.add_argument(
        "overrides", nargs="*", help="as given to soaes.run, e.g. scale=smoke seed=0,1,2"
    )
    parser.add_argument("--only", nargs="*", help="tables to read, e.g. table2,table3")
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
        "--report", action="store_true", help="write report.html too, beside those files"
    )
    parser.add_argument(
        "--stale",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="list committed tables whose recipes have changed since",
    )
    conf_folders.add_option(parser)
    return parser


# ---------------------------------------------------------------- tables


def _print_tables(overrides: list[str], only: list[str], out: Path | None, report: bool) -> int:
    names = only or table_names()
    for name in names:
        check_table(name)
    if only and report:
        raise ValueError("--report: the page shows every table; leave out --only")
    store, scale = existing_store_of(overrides), compose.chosen_option(overrides, "scale")
    folder = out or store.root / "tables" / scale
    check_writable(folder, "set --out FOLDER, where the tables are written to")
    tables = read_tables(names, overrides)
    shown = only or shown_unasked(tables, store)
    markdown = []
    for name in shown:
        page = _page(tables, name, overrides, folder) if out else []
        markdown.append(write_table(tables, name, store, folder, page))
    if not only:
        markdown.append(_write_verdicts({name: tables[name] for name in shown}, overrides, folder))
    width = terminal_width()
    if width is None:
        print("\n\n".join(markdown) + "\n")
    else:
        show = terminal.details if only else terminal.overview
        print("\n".join(show(tables, shown, store, width)))
    status = 0
    if not only and scale == "smoke" and compose.chosen_option(overrides, "data") == "world":
        status = _print_checks(tables, store)
    if report:
        path = folder / "report.html"
        gathered = record.gather(overrides, tables, shown)
        print(f"Report: {render.write(path, gathered)}")
        wandb_runs.record_report(path, gathered.record, overrides)
    elif width is not None:
        print(f"Files: {folder}")
    if not only and folder.parent.resolve() == EXPERIMENTS:
        index.write(EXPERIMENTS)  # which links the page
    return status


def _write_verdicts(tables: Tables, overrides: list[str], folder: Path) -> str:
    """Write what a folder of all tables has besides; return the verdicts as Markdown."""
    freshness.write(tables, overrides, folder)
    return write_verdicts(tables, compose.chosen_option(overrides, "scale"), folder)


def _page(tables: Tables, name: str, overrides: list[str], folder: Path) -> list[str]:
    """What a published table has besides: its sweep, a picture, and how to read it."""
    spec = tables[name].spec
    command = freshness.command([f"experiment={','.join(spec.experiments)}", *overrides])
    few = f", {', '.join(spec.few_seeds)} in {FEW_SEEDS} seeds at most" if spec.few_seeds else ""
    parts = [f"Made by `{command}`{few}."]
    if picture := plots.draw(tables, name, folder):
        parts.append(f"![{name}]({picture.name})")
    scale = compose.chosen_option(overrides, "scale")
    if scale in spec.reading:
        parts.append(spec.reading[scale].strip())
    return parts


def _print_checks(tables: Mapping[str, Table], store: Store) -> int:
    checks = sanity_checks.check(tables, store)
    failed = [check for check in checks if not check.holds]
    if terminal_width() is not None:  # which has a line for each that fails
        print(f"{len(checks) - len(failed)} of {len(checks)} sanity checks passed")
        checks = failed
    for check in checks:
        verdict = "passed" if check.holds else styled("FAILED", "red")
        print(f"sanity check {verdict}: {check.text}")
    return 1 if failed else 0


# ---------------------------------------------------------------- staleness and origin


def _print_stale(folders: list[Path]) -> int:
    committed = sorted(path.parent for path in EXPERIMENTS.glob("*/recipes.json"))
    lines, stale = freshness.check(folders or committed)
    nothing = "no committed tables: `make publish` writes them, with the recipes.json compared here"
    print("\n".join(lines) or nothing)
    return 1 if stale else 0


def _print_why(overrides: list[str], why: str) -> int:
    name, _, row = why.partition(".")
    check_table(name)
    tables = read_tables([name], overrides)
    print("\n".join(explain(tables, name, row, existing_store_of(overrides))))
    return 0


def explain(tables: Mapping[str, Table], name: str, row: str, store: Store) -> list[str]:
    """Say where the cells of a row come from.

    Args:
        tables: The tables that were read.
        name: The table.
        row: A row's key, or ROW.COLUMN to see that value too.
        store: Where the rows were read.

    Returns:
        Lines: the folders by seed and what made them, then the first seed's whole lineage.

    Raises:
        ValueError: The table has no such row.
    """
    key, _, column = row.partition(".")
    rows = tables[name].rows
    check_row(name, key, rows)
    table_row = rows[key]
    if not table_row.recipes:
        return [f"{table_row.label}: {table_row.reason or table_row.missing}"]
    lines = [table_row.label]
    if column:
        lines.append(f"{column} = {table_row.values.get(column)}")
    if table_row.reason:
        lines.append(table_row.reason)
    for seed, goals in table_row.recipes.items():
        for goal in goals.values():
            lines += _origin(store, goal, f"seed {seed}: ")
    first_seed = next(iter(table_row.recipes.values()))
    for goal in first_seed.values():
        lines += ["", *labels.lineage_tree(goal)]
    return lines


def _origin(store: Store, goal: Recipe, prefix: str) -> list[str]:
    folder = store.folder(goal.name)
    if not store.holds(goal.name):
        return [f"{prefix}folder {folder}  not built"]
    manifest = store.manifest(goal.name)
    shown = ("made", "seconds", "commit", "machine")
    facts = {key: manifest[key] for key in shown if key in manifest}
    return [f"{prefix}folder {folder}", str(facts)]


if __name__ == "__main__":
    main()
