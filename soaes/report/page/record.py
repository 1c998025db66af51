"""All that the page shows, as one value that JSON holds: read once, embedded once.

Large parts, the curves and the answers, are blocks of their own, which the page unpacks when they
are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from soaes.pipeline import compose
from soaes.pipeline.recipe import Recipe
from soaes.report import freshness, results
from soaes.report.page import answers, stages, tables
from soaes.report.page.stages import StageRecord, TimeRecord
from soaes.report.page.tables import TableRecord
from soaes.report.results import Table


class SheetIndex(TypedDict):
    """Where the answers of one kind and seed are."""

    kind: str
    seed: int
    block: str
    stages: list[str]


class PageRecord(TypedDict):
    """What the page shows; larger parts are in its blocks."""

    scale: str
    seeds: list[int]
    overrides: list[str]  # of the command line, but how stages were run
    made: str  # when the newest stage was built; empty if none is
    tables: list[TableRecord]
    stages: dict[str, StageRecord]  # by name, parents first
    commands: dict[str, str]  # goal -> the command that builds it
    times: list[TimeRecord]
    data: list[dict[str, Any]]  # packing and curation reports
    sheets: list[SheetIndex]
    curves: str  # the block of the curves


@dataclass(frozen=True)
class Report:
    """The page's record and the blocks that it names."""

    record: PageRecord
    blocks: Mapping[str, Any]


def gather(overrides: list[str], read: Mapping[str, Table], shown: Sequence[str]) -> Report:
    """Read all that stands behind tables.

    Args:
        overrides: The command line of the sweeps, as of `soaes.table`.
        read: The tables, as they were read, and those whose rows their claims compare with.
        shown: Which of them are shown.
    """
    store, scale = results.store_of(overrides), compose.chosen_option(overrides, "scale")
    goals = [goal for name in shown for goal in _goals(read[name])]
    recipes, seeds = stages.ancestry(goals)
    sheets = {f"answers-{i}": sheet for i, sheet in enumerate(answers.sheets(store, goals))}
    records = {
        name: stages.stage_record(store, recipe, seeds[name]) for name, recipe in recipes.items()
    }
    record: PageRecord = {
        "scale": scale,
        "seeds": results.seeds(overrides),
        "overrides": [word for word in overrides if not freshness.is_execution(word)],
        "made": max((stage["made"] for stage in records.values()), default=""),
        "tables": [tables.table_record(read, name, store, scale) for name in shown],
        "stages": records,
        "commands": _commands(read, shown, overrides),
        "times": stages.times(store, recipes),
        "data": stages.data_accounts(store, recipes, seeds),
        "sheets": [sheet_index(block, sheet) for block, sheet in sheets.items()],
        "curves": "curves",
    }
    blocks = {"curves": stages.curves(store, recipes, seeds), **sheets}
    return Report(record, blocks)


def _goals(table: Table) -> list[tuple[int, Recipe]]:
    return [
        (seed, goal)
        for row in table.rows.values()
        for seed, of_seed in row.recipes.items()
        for goal in of_seed.values()
    ]


def sheet_index(block: str, sheet: answers.Sheet) -> SheetIndex:
    """Say what a block of answers holds, for the page to find it before it is unpacked."""
    return {
        "kind": sheet["kind"],
        "seed": sheet["seed"],
        "block": block,
        "stages": sheet["stages"],
    }


def _commands(
    read: Mapping[str, Table],
    shown: Sequence[str],
    overrides: list[str],
) -> dict[str, str]:
    """Write down for each goal the command that builds it and nothing else."""
    commands: dict[str, str] = {}
    for name in shown:
        spec = read[name].spec
        for key, row in spec.rows.items():
            for jobs in results.row_jobs(key, row, overrides, spec.few_seeds).values():
                for job in jobs.values():
                    commands.setdefault(job.recipe.name, freshness.command(job.arguments))
    return commands
