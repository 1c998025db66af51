"""Rows and reports as W&B runs: what a person finds them by, and what they carry.

A row's run is named by its table and the row's label, grouped by its sweep and tagged with its
seed, tables and claims; it carries its cells beside the paper's, and says where the verdicts, the
lineage and the curves are. The report's run carries the verdicts and the page.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from soaes.pipeline import command_line, compose, labels, store, tracking
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import TRAINING_STAGES
from soaes.pipeline.sweep import Job
from soaes.pipeline.tracking import RunDescription
from soaes.report import freshness, markdown, results, table_spec
from soaes.report.page.record import PageRecord
from soaes.report.page.tables import ClaimRecord
from soaes.report.table_spec import RowSpec, TableSpec

# Keys of a job that the name of its run says in other words.
NAMED_KEYS = ("scale", "seed")


@dataclass(frozen=True)
class TablePlace:
    """A row of a table, which a job makes or helps to make."""

    table: str
    key: str
    spec: TableSpec
    row: RowSpec

    @property
    def address(self) -> str:
        """The row as commands and the report's page name it: `table3.alpha_05`."""
        return f"{self.table}.{self.key}"


# ---------------------------------------------------------------- rows


def record_row(job: Job, metrics: Mapping[str, Any]) -> None:
    """Record a job as one W&B run, also when every stage of it was cached.

    W&B draws a panel of each metric that is a column of some table; the summary has all metrics,
    and the paper's values as `paper/METRIC`.

    Args:
        job: The job, whose goal is built.
        metrics: Those of the goal.
    """
    stage = job.recipe.stage
    columns = {name for spec in _specs().values() for name in spec.all_columns}
    numbers = {name: value for name, value in metrics.items() if results.is_number(value)}
    panels = {name: value for name, value in numbers.items() if name in columns}
    others = {name: value for name, value in metrics.items() if name not in panels}
    paper = {}
    for place in _places(job):
        for name, value in place.row.paper.items():
            if name in panels:
                paper[f"paper/{name}"] = value
    tracking.record(
        describe_row(job, metrics),
        job.runtime.logger,
        tracking.in_section(stage, panels),
        {**tracking.in_section(stage, others), **paper},
    )


def describe_row(job: Job, metrics: Mapping[str, Any]) -> RunDescription:
    """Say what the run of a job is found by.

    Args:
        job: The job.
        metrics: Those of its goal, which the notes show beside the paper's.
    """
    seed = results.seeds(job.arguments)[0]
    places = _places(job)
    tables = dict.fromkeys(place.table for place in places)
    addresses = [place.address for place in places]
    claims = _claims(addresses)
    return RunDescription(
        id=job.name,
        name=_row_name(job, places, seed),
        group=job.experiment or "rows",
        job_type="row",
        tags=(f"seed {seed}", *tables, *claims),
        notes="\n\n".join(_row_notes(job, places, claims, metrics)),
        config={
            **job.overrides,
            "seed": seed,
            "goal": job.recipe.stage,
            "rows": addresses,
            "stages": sorted(job.recipe.ancestry()),
        },
    )


def _places(job: Job) -> list[TablePlace]:
    """List the rows of tables that a job makes; none if it is of no table."""
    places = []
    for name, spec in _specs().items():
        for key, row in spec.rows.items():
            for role, experiment in row.sweeps.items():
                is_goal = experiment == job.experiment and role == job.recipe.stage
                if is_goal and row.is_made_by(role, job.overrides):
                    places.append(TablePlace(name, key, spec, row))
    return places


@cache
def _specs() -> dict[str, TableSpec]:
    return {name: table_spec.load(name) for name in table_spec.table_names()}


def _row_name(job: Job, places: list[TablePlace], seed: int) -> str:
    """Name a row: `table3.alpha_05: Base 2x64 + distillation (alpha 0.5, tau 2), seed 0`.

    What else the command line says follows, and the goal where the row has several.
    """
    if not places:
        return job.words if job.overrides else job.recipe.name
    first = places[0]
    label = _label(job, first)
    further = _further_words(job, first.row).items()
    parts = [label, f"seed {seed}", *(word for key, word in further if key not in NAMED_KEYS)]
    if len(first.row.sweeps) > 1:
        parts.append(job.recipe.stage)
    return f"{first.address}: {', '.join(parts)}"


def _label(job: Job, place: TablePlace) -> str:
    """Name a row as its table does, or by the model where the job measures another thing of it."""
    spec, row = place.spec, place.row
    if spec.label not in job.recipe.arguments:
        model = tracking.model_of(job.recipe)
        return tracking.name_model(model) if model else job.recipe.name
    label = results.row_label(spec, row, job.recipe)
    settings = results.row_settings(spec, row, job.recipe)
    words = [f"{title} {value}" for title, value in settings.items() if value != "-"]
    return f"{label} ({', '.join(words)})" if words else label


def _further_words(job: Job, row: RowSpec) -> dict[str, str]:
    """Return the overrides that a row does not set, by key: `{"seed": "seed=0"}`."""
    words = {}
    for word in job.arguments:
        (parsed,) = command_line.parse([word])
        key = command_line.key_of(parsed)
        if key not in ("experiment", "goal", *row.when) and not freshness.is_execution(word):
            words[key] = word
    return words


def _row_notes(
    job: Job, places: list[TablePlace], claims: Mapping[str, str], metrics: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the paragraphs of a row's notes."""
    scale = compose.chosen_option(job.arguments, "scale")
    page = f"tables/{scale}/report.html"
    for place in places:
        yield f"**{place.spec.title}**, row `{place.key}`"
        yield "\n".join(_cells(place, metrics))
        column = next(iter(place.spec.columns))
        yield f"Cell, answers and verdicts: `{page}#{place.address}.{column}` in the store."
        words = _further_words(job, place.row).values()
        why = shlex.join(["python", "-m", "soaes.table", *words, "--why", place.address])
        yield f"Lineage: `{why}`"
    for claim, text in claims.items():
        yield f"{claim}: {text} (all its rows: tag `{claim}`; its verdict: run `{_id(scale)}`)"
    yield f"Again: `{freshness.command(job.arguments)}`"
    yield "Curves, by run:\n" + "\n".join(_trained(job.recipe))


def _cells(place: TablePlace, metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: a metric of the row, here and in the paper."""
    yield "| | here | paper |"
    yield "|---|---|---|"
    for name, column in place.spec.all_columns.items():
        if name in metrics:
            here = markdown.number_text(metrics[name], column.digits)
            paper = markdown.number_text(place.row.paper.get(name), column.digits)
            yield f"| {column.title} | {here} | {paper} |"


def _claims(addresses: list[str]) -> dict[str, str]:
    """Return the claims that compare any of some rows, by their keys."""
    claims = {}
    for table, spec in _specs().items():
        for key, claim in spec.claims.items():
            cells = [cell for pair in claim.pairs for cell in pair.cells]
            if any(f"{cell.table or table}.{cell.row}" in addresses for cell in cells):
                claims[key] = claim.text
    return claims


def _trained(goal: Recipe) -> Iterator[str]:
    """Yield a line for each training stage of a goal's ancestry, whose run has its curves."""
    for name, stage in goal.ancestry().items():
        if stage.stage in TRAINING_STAGES:
            yield f"- `{name}`: {labels.label(stage)}"


# ---------------------------------------------------------------- the report


def record_report(page: Path, record: PageRecord, overrides: list[str]) -> None:
    """Record a report as one W&B run with the page and the verdicts, unless it is as it was.

    Args:
        page: The file.
        record: What it shows.
        overrides: The command line that it was made with.
    """
    runtime = results.runtime_of(overrides)
    logger = runtime.logger
    if not logger.enabled or not record["made"]:
        return
    note = runtime.store / "rows" / f"{_id(record['scale'])}.json"
    facts = {"logger": logger.mode, "page": store.checksum(page)}
    if note.exists() and store.read_json(note) == facts:
        return
    claims = [claim for table in record["tables"] for claim in table["claims"]]
    verdicts = {f"verdict/{claim['claim']}": claim["verdict"] for claim in claims}
    if not tracking.record(describe_report(record, claims), logger, {}, verdicts, page):
        return
    try:
        note.parent.mkdir(exist_ok=True)
        store.write_json(note, facts)
    except OSError:  # a store that cannot be written; the next report is recorded anew
        pass


def describe_report(record: PageRecord, claims: list[ClaimRecord]) -> RunDescription:
    """Say what the run of a report is found by; the notes show its verdicts."""
    seeds = ", ".join(map(str, record["seeds"]))
    word = "seed" if len(record["seeds"]) == 1 else "seeds"
    lines = ["| claim | what the paper says | verdict | effect | paper |", "|---|---|---|---|---|"]
    for claim in claims:
        pair = claim["pairs"][claim["weakest"]]
        cells = [claim["claim"], claim["text"], claim["verdict"], pair["effect"]]
        lines.append(f"| {' | '.join([*cells, pair['paper_effect']])} |")
    return RunDescription(
        id=_id(record["scale"]),
        name=f"report of {record['scale']}, {word} {seeds}",
        group="reports",
        job_type="report",
        notes="\n".join([*lines, "", "The page is `report.html` among this run's files."]),
        config={"overrides": record["overrides"], "seeds": record["seeds"]},
    )


def _id(scale: str) -> str:
    """Name the run of the newest report of a scale, as there is one file of it in the store."""
    return f"report-{scale}"
