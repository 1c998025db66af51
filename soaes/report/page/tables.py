"""Tables and claims as the page shows them: the texts of the Markdown, and the numbers behind.

Knows tables as they were read; computes no value of its own but ours less the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any, TypedDict

from soaes.metrics.bootstrap import Effect
from soaes.pipeline.store import Store
from soaes.report import claims, markdown, pictures
from soaes.report.claims import ClaimResult, Comparison
from soaes.report.results import Table, TableRow, is_number


class CellRecord(TypedDict):
    """A cell: what the Markdown shows, and more."""

    text: str  # `45.85 ±4.56`, or why there is no value
    low: str  # the ends of the 95 % interval; empty without one
    high: str
    paper: str  # the paper's value; empty without one
    difference: str  # ours less the paper's, signed
    seeds: dict[str, str]  # seed -> value
    stages: dict[str, str]  # seed -> name of the stage that measured it


class RowRecord(TypedDict):
    """A row: its cells, and the stages that measured it."""

    key: str
    label: str
    paper: str  # the paper's name of it
    settings: list[str]  # in the order of the table's titles
    missing: str
    reason: str
    cells: dict[str, CellRecord]  # by column
    goals: dict[str, dict[str, str]]  # seed -> role -> name of the stage


class ColumnRecord(TypedDict):
    """A column, or one of the breakdown."""

    key: str
    title: str
    in_paper: bool


class PairRecord(TypedDict):
    """A pair of a claim: an effect with its interval, beside the paper's."""

    text: str
    verdict: str
    effect: str  # `+1.25 [+0.3, +2.2]`
    paper_effect: str
    value: float | None  # the same as numbers, to be drawn
    low: float | None  # None, as `high`, where nothing says how the effect varies
    high: float | None
    paper: float | None
    seeds: int


class ClaimRecord(TypedDict):
    """A claim with its verdict and its pairs."""

    claim: str
    text: str
    verdict: str
    weakest: int  # the index of the pair that decides
    pairs: list[PairRecord]
    also: list[dict[str, Any]]  # by further metrics: metric, verdict and the deciding pair


class TableRecord(TypedDict):
    """A table with its claims."""

    name: str
    title: str
    asks: str
    settings: list[str]  # titles
    columns: list[ColumnRecord]
    breakdown: list[ColumnRecord]
    rows: list[RowRecord]
    claims: list[ClaimRecord]
    notes: list[str]
    origin: list[str]
    reading: str  # what its numbers say, at this scale
    picture: list[dict[str, Any]]  # panels of `pictures`, as plain values


def table_record(tables: Mapping[str, Table], name: str, store: Store, scale: str) -> TableRecord:
    """Describe a table.

    Args:
        tables: The table, and those whose rows its claims compare with.
        name: The table's name.
        store: Where its rows were read, for their origin.
        scale: The scale, of whose numbers the table's description may speak.
    """
    table = tables[name]
    spec = table.spec
    in_paper = markdown.columns_of_paper(table)
    titles = markdown.setting_titles(table)
    columns: dict[str, ColumnRecord] = {
        key: {"key": key, "title": column.title, "in_paper": key in in_paper}
        for key, column in spec.all_columns.items()
    }
    return {
        "name": name,
        "title": spec.title,
        "asks": spec.asks.strip(),
        "settings": titles,
        "columns": [columns[key] for key in spec.columns],
        "breakdown": [columns[key] for key in spec.breakdown],
        "rows": [_row(table, key, row, titles) for key, row in table.rows.items()],
        "claims": [_claim(result) for result in claims.judge(tables, name)],
        "notes": markdown.notes(table),
        "origin": [line.strip() for line in markdown.origin_lines([table], store) if line],
        "reading": spec.reading.get(scale, "").strip(),
        "picture": [asdict(panel) for panel in pictures.picture(table, name)],
    }


# ---------------------------------------------------------------- rows


def _row(table: Table, key: str, row: TableRow, titles: list[str]) -> RowRecord:
    columns = table.spec.all_columns
    goals = {
        str(seed): {role: goal.name for role, goal in of_seed.items()}
        for seed, of_seed in row.recipes.items()
    }
    return {
        "key": key,
        "label": row.label,
        "paper": str(row.paper.get("name", "")),
        "settings": [row.settings.get(title, "-") for title in titles],
        "missing": row.missing,
        "reason": row.reason,
        "cells": {name: _cell(row, name, column.digits) for name, column in columns.items()},
        "goals": goals,
    }


def _cell(row: TableRow, column: str, digits: int) -> CellRecord:
    ours, paper = row.values.get(column), row.paper.get(column)
    low, high = row.intervals.get(column, (None, None))
    difference = ""
    if is_number(ours) and is_number(paper):
        difference = f"{ours - paper:+.{digits}f}"
    measured = {
        str(seed): metrics[column] for seed, metrics in row.measured.items() if column in metrics
    }
    return {
        "text": markdown.cell_text(row, column, digits),
        "low": "" if low is None else markdown.number_text(low, digits),
        "high": "" if high is None else markdown.number_text(high, digits),
        "paper": "" if paper is None else markdown.number_text(paper, digits),
        "difference": difference,
        "seeds": {
            seed: markdown.number_text(of_seed.value, digits) for seed, of_seed in measured.items()
        },
        "stages": {seed: of_seed.stage for seed, of_seed in measured.items()},
    }


# ---------------------------------------------------------------- claims


def _claim(result: ClaimResult) -> ClaimRecord:
    also = [
        {"metric": metric, "verdict": other.verdict, "pair": _pair(other.weakest)}
        for metric, other in result.also.items()
    ]
    return {
        "claim": result.claim,
        "text": result.text,
        "verdict": result.verdict,
        "weakest": result.pairs.index(result.weakest),
        "pairs": [_pair(pair) for pair in result.pairs],
        "also": also,
    }


def _pair(pair: Comparison) -> PairRecord:
    effect = pair.effect or Effect(float("nan"), float("nan"), float("nan"), 0)
    return {
        "text": pair.text,
        "verdict": pair.verdict,
        "effect": markdown.effect_text(pair.effect),
        "paper_effect": markdown.signed_text(pair.paper),
        "value": _finite(effect.value),
        "low": _finite(effect.low),
        "high": _finite(effect.high),
        "paper": pair.paper,
        "seeds": effect.seeds,
    }


def _finite(number: float) -> float | None:
    """A number as JSON has it."""
    return number if isfinite(number) else None
