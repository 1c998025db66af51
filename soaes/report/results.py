"""From a table's description and the store to its rows: recipes, metrics, means and intervals.

The sweeps of a row are composed again, and exactly the folders that their recipes name are read.
Builds nothing and imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean
from typing import Any, TypeGuard

import yaml

from soaes.decode import settings as decoder_settings
from soaes.metrics import bootstrap
from soaes.metrics.bootstrap import Measured
from soaes.metrics.samples import statistics
from soaes.metrics.schema import PREDICTIONS
from soaes.pipeline import command_line, conf_folders, labels, sweep
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.resolvers import cache_folder
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store, damaged, read_recipe
from soaes.report import table_spec
from soaes.report.table_spec import ColumnSpec, RowSpec, TableSpec

Goals = dict[str, Recipe]  # goal of a sweep of a row -> what the row's job builds
Interval = tuple[float, float]

FEW_SEEDS = 3  # of a command line, in which the sweeps that a table names are run at most


@dataclass(frozen=True)
class TableRow:
    """One row of a table: what was measured, or why not, beside the paper's values."""

    label: str
    settings: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)  # mean over seeds; else the first's
    intervals: Mapping[str, Interval] = field(default_factory=dict)  # 95 %, of the columns
    paper: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""  # failed, not built, not swept, the paper's only; empty if all is there
    reason: str = ""  # what failed, or which seeds are there, in one line
    recipes: Mapping[int, Goals] = field(default_factory=dict)  # by seed
    measured: Mapping[int, Mapping[str, Measured]] = field(default_factory=dict)  # by seed

    @property
    def goals(self) -> list[Recipe]:
        """The recipes of all seeds and sweeps."""
        return [goal for of_seed in self.recipes.values() for goal in of_seed.values()]


@dataclass(frozen=True)
class Table:
    """A table as the store has it."""

    spec: TableSpec
    rows: Mapping[str, TableRow]


def read_table(name: str, overrides: list[str]) -> Table:
    """Read a table as the store has it now.

    Args:
        name: A table of experiments/.
        overrides: The command line of the sweep; each row is read in every seed among them.

    Returns:
        The table; rows that are not built say why.
    """
    spec = table_spec.load(name)
    store = store_of(overrides)
    rows = {}
    for key, row in spec.rows.items():
        goals = row_recipes(key, row, overrides, spec.few_seeds)
        rows[key] = _read_row(store, spec, row, goals)
    return Table(spec, rows)


def read_tables(names: Sequence[str], overrides: list[str]) -> dict[str, Table]:
    """Read tables, and those whose rows their claims compare with."""
    needed = set(names)
    for name in names:
        for claim in table_spec.load(name).claims.values():
            cells = [cell for pair in claim.pairs for cell in pair.cells]
            needed |= {cell.table for cell in cells if cell.table}
    return {name: read_table(name, overrides) for name in sorted(needed)}


def shown_unasked(tables: Mapping[str, Table], store: Store) -> list[str]:
    """List the paper's tables, and those of ours of which something is built for itself.

    Args:
        tables: All tables, as they were read.
        store: Where their rows were read.
    """
    names = sorted(tables, key=table_spec.paper_first)
    of_paper = {name: _goal_names(tables[name]) for name in names if table_spec.is_of_paper(name)}
    shared = {goal for goals in of_paper.values() for goal in goals}
    shown = list(of_paper)
    for name in names:
        own = _goal_names(tables[name]) - shared
        if name not in of_paper and any(store.holds(goal) for goal in own):
            shown.append(name)
    return shown


def _goal_names(table: Table) -> set[str]:
    return {goal.name for row in table.rows.values() for goal in row.goals}


def read_row(name: str, key: str, overrides: list[str]) -> TableRow:
    """Read one row of a table as the store has it now; see `read_table`.

    Raises:
        ValueError: There is no such table, or it has no such row.
    """
    table_spec.check_table(name)
    spec = table_spec.load(name)
    table_spec.check_row(name, key, spec.rows)
    row = spec.rows[key]
    goals = row_recipes(key, row, overrides, spec.few_seeds)
    return _read_row(store_of(overrides), spec, row, goals)


def read_stage(store: Store, name: str) -> TableRow:
    """Read one complete output of a store as a row of one seed, numbered 0."""
    recipe = read_recipe(store, name)
    goals = {recipe.stage: recipe}
    measured = _measured(store, goals, None)
    return TableRow(name, recipes={0: goals}, measured={0: measured} if measured else {})


def runtime_of(overrides: list[str]) -> Runtime:
    """Find how a command line's stages are run: all of its jobs have the same."""
    return _jobs("", tuple(at_seeds(overrides, 1)))[0].runtime


def store_of(overrides: list[str]) -> Store:
    """Find the store that a command line names."""
    return Store(runtime_of(overrides).store)


def existing_store_of(overrides: list[str]) -> Store:
    """Find the store that a command line names, which reading does not make.

    Raises:
        ValueError: There is no such folder.
    """
    root = cache_folder(overrides).parent
    if not root.is_dir():  # composing would make it
        raise ValueError(
            f"{root.absolute()}: there is no store; build the rows with soaes.run, or correct "
            "runtime.store or SOAES_STORE"
        )
    return store_of(overrides)


# ---------------------------------------------------------------- recipes


def row_recipes(
    key: str, row: RowSpec, overrides: list[str], few_seeds: Sequence[str] = ()
) -> dict[int, Goals]:
    """Find the recipes of a row in its sweeps: those of `row_jobs`, seed -> role -> recipe."""
    by_seed = row_jobs(key, row, overrides, few_seeds)
    return {
        seed: {role: job.recipe for role, job in jobs.items()} for seed, jobs in by_seed.items()
    }


def row_jobs(
    key: str, row: RowSpec, overrides: list[str], few_seeds: Sequence[str] = ()
) -> dict[int, dict[str, sweep.Job]]:
    """Find the jobs of a row in its sweeps.

    Args:
        key: The row's key, for the error message.
        row: Which sweeps and which job of each.
        overrides: The command line of the sweep.
        few_seeds: Roles that are measured in the first FEW_SEEDS seeds alone.

    Returns:
        Seed -> role -> job, roles in the row's order; empty if the overrides leave the row out.
        Where a sweep has several goals, the role names one of them.

    Raises:
        ValueError: The overrides make several jobs of the row in one seed.
    """
    by_seed: dict[int, dict[str, sweep.Job]] = {}
    for role, experiment in row.sweeps.items():
        words = at_seeds(overrides, FEW_SEEDS) if role in few_seeds else overrides
        jobs = [
            job for job in _jobs(experiment, tuple(words)) if row.is_made_by(role, job.overrides)
        ]
        job_seeds = [int(job.overrides.get("seed", seeds(overrides)[0])) for job in jobs]
        if len(set(job_seeds)) < len(jobs):
            raise ValueError(
                f"{len(jobs)} jobs of {experiment} match row {key}, a table shows one per seed; "
                "give one value to every override but seed, e.g. distill.tau=2"
            )
        for seed, job in zip(job_seeds, jobs, strict=True):
            by_seed.setdefault(seed, {})[role] = job
    return {seed: by_seed[seed] for seed in seeds(overrides) if seed in by_seed}


def seeds(overrides: list[str]) -> list[int]:
    """List the seeds of a command line; without any, the one that run.yaml sets."""
    given = command_line.last(overrides, "seed")
    if given is None:
        return [yaml.safe_load((conf_folders.CONF / "run.yaml").read_text("utf-8"))["seed"]]
    for value in command_line.values(given):
        if not value.isdecimal():
            raise ValueError(f"seed={value}: must be a whole number of at least 0")
    return [int(value) for value in command_line.values(given)]


def at_seeds(overrides: list[str], count: int) -> list[str]:
    """Return the same command line at its first seeds alone, `count` of them at most."""
    all_seeds = seeds(overrides)
    if len(all_seeds) <= count:
        return overrides
    chosen = ",".join(map(str, all_seeds[:count]))
    return [*command_line.without(overrides, "seed"), f"seed={chosen}"]


@cache
def _jobs(experiment: str, overrides: tuple[str, ...]) -> list[sweep.Job]:
    words = [f"experiment={experiment}"] if experiment else []
    return sweep.jobs([*words, *overrides])


# ---------------------------------------------------------------- rows


def _read_row(store: Store, spec: TableSpec, row: RowSpec, goals: dict[int, Goals]) -> TableRow:
    if not row.sweeps:
        return TableRow(row.paper["name"], paper=row.paper, missing="the paper's only")
    if not goals:
        name = row.paper.get("name", str(row.when))
        return TableRow(name, paper=row.paper, missing="not swept")
    measured = {}
    for seed, of_seed in goals.items():
        if metrics := _measured(store, of_seed, spec.shared_metrics):
            measured[seed] = metrics
    by_metric = _by_metric(measured)
    first = next(iter(next(iter(goals.values())).values()))
    missing, reason = _missing(store, goals)
    return TableRow(
        label=row_label(spec, row, first),
        settings=row_settings(spec, row, first),
        values={metric: _mean(of_seeds) for metric, of_seeds in by_metric.items()},
        intervals=_intervals(by_metric, spec.all_columns),
        paper=row.paper,
        missing=missing,
        reason=reason,
        recipes=goals,
        measured=measured,
    )


def row_label(spec: TableSpec, row: RowSpec, goal: Recipe) -> str:
    """Name a row by the lineage of a model, or by a decoder, with the row's note."""
    described = goal.arguments[spec.label]
    if described is None:
        name = "None"
    elif isinstance(described, Recipe):
        name = labels.label(described)
    else:
        decoder = described["_target_"].rpartition(".")[2]
        name = getattr(decoder_settings, decoder).label
    return f"{name} ({row.note})" if row.note else name


def row_settings(spec: TableSpec, row: RowSpec, goal: Recipe) -> dict[str, str]:
    """Look up the settings that a table shows of a row, by their titles."""
    return {title: _setting(row, goal, path) for title, path in spec.settings.items()}


def _setting(row: RowSpec, goal: Recipe, path: str) -> str:
    """Look up `when.KEY`, what the row swept, or a path through the recipe and its parents.

    `-` stands for a setting that the row does not have.
    """
    if path.startswith("when."):
        return str(row.when.get(path.removeprefix("when."), "-"))
    value: Any = goal
    for part in path.split("."):
        arguments = value.arguments if isinstance(value, Recipe) else value
        value = arguments.get(part) if isinstance(arguments, dict) else None
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


# ---------------------------------------------------------------- metrics


def _measured(store: Store, goals: Goals, shared: str | None) -> dict[str, Measured]:
    """Read the metrics of one seed, and as `model.METRIC` those of what a goal reads.

    Raises:
        ValueError: Two sweeps have a metric, and the table does not say whose it shows.
    """
    built = [role for role, goal in goals.items() if store.holds(goal.name)]
    metrics: dict[str, Measured] = {}
    source: dict[str, str] = {}
    for role in sorted(built, key=lambda role: role != shared):
        for metric, measured in _own_metrics(store, goals[role]).items():
            if metric not in metrics:
                metrics[metric], source[metric] = measured, role
            elif source[metric] != shared:
                raise ValueError(
                    f"{metric} is measured by two sweeps of a row, {source[metric]} and {role}; "
                    "set shared_metrics of the table to the one whose value it shows"
                )
    for role in built:
        for metric, measured in _parent_metrics(store, goals[role]).items():
            if metric in metrics and metrics[metric].value != measured.value:
                raise ValueError(
                    f"{metric} differs between the sweeps of a row; make them read one model"
                )
            metrics.setdefault(metric, measured)
    return metrics


def _own_metrics(store: Store, goal: Recipe) -> dict[str, Measured]:
    predictions = store.folder(goal.name) / PREDICTIONS
    if not predictions.exists() and PREDICTIONS in store.manifest(goal.name)["files"]:
        raise damaged(predictions, ValueError("it is gone"))
    sampled = statistics(predictions)
    metrics = store.metrics(goal.name)
    return {
        metric: Measured(value, sampled.get(metric), goal.name) for metric, value in metrics.items()
    }


def _parent_metrics(store: Store, goal: Recipe) -> dict[str, Measured]:
    metrics = {}
    for key, parent in goal.arguments.items():
        if isinstance(parent, Recipe):
            for metric, value in store.metrics(parent.name).items():
                metrics[f"{key}.{metric}"] = Measured(value, stage=parent.name)
    return metrics


def _by_metric(measured: Mapping[int, Mapping[str, Measured]]) -> dict[str, list[Measured]]:
    by_metric: dict[str, list[Measured]] = {}
    for metrics in measured.values():
        for metric, value in metrics.items():
            by_metric.setdefault(metric, []).append(value)
    return by_metric


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a metric is a number, which a mean can be taken of."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mean(of_seeds: Sequence[Measured]) -> Any:
    """Average over the seeds; a value that is the same in all, or no number, as it is."""
    values = [measured.value for measured in of_seeds]
    if not all(map(is_number, values)) or len(set(values)) == 1:
        return values[0]
    return fmean(values)


def _intervals(
    by_metric: Mapping[str, list[Measured]], columns: Mapping[str, ColumnSpec]
) -> dict[str, Interval]:
    intervals = {}
    for metric in columns:
        of_seeds = by_metric.get(metric, [])
        if not of_seeds or not all(is_number(measured.value) for measured in of_seeds):
            continue
        effect = bootstrap.effect([[measured] for measured in of_seeds], lambda terms: terms[0])
        if effect.low == effect.low:  # NaN: nothing says how the metric varies
            intervals[metric] = (effect.low, effect.high)
    return intervals


# ---------------------------------------------------------------- what is not there


def _missing(store: Store, goals: dict[int, Goals]) -> tuple[str, str]:
    """Say why goals are not there: a stage of their ancestry failed, or nobody has built them."""
    unbuilt = [
        goal
        for of_seed in goals.values()
        for goal in of_seed.values()
        if not store.holds(goal.name)
    ]
    if failure := _failure(store, unbuilt):
        return "failed", failure
    built = [
        str(seed)
        for seed, of_seed in goals.items()
        if any(store.holds(goal.name) for goal in of_seed.values())
    ]
    reason = ""
    if 0 < len(built) < len(goals):
        reason = f"of seeds {', '.join(map(str, goals))} only {', '.join(built)} built"
    return ("not built" if unbuilt else ""), reason


def _failure(store: Store, unbuilt: Sequence[Recipe]) -> str:
    for goal in unbuilt:
        for name in goal.ancestry():
            if reason := store.failure(name):
                return f"{name} failed: {reason}"
    return ""
