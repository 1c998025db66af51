"""From a table's description and the store to its lines: recipes recomposed, metrics read, means and intervals over the seeds.

Reads exactly the folders that the recipes name. Builds nothing, imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from statistics import fmean
from typing import Any

import yaml

from soaes.decode import settings as decoder_settings
from soaes.metrics import bootstrap
from soaes.metrics.bootstrap import Measured
from soaes.metrics.samples import statistics
from soaes.pipeline import compose, labels, sweep
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store

EXPERIMENTS = compose.shipped_folder("experiments")


@dataclass(frozen=True)
class TableRow:
    """One row of a table: what we measured, or why not, beside what the paper has."""

    label: str
    settings: dict[str, str]
    values: dict[str, Any]  # the mean over the seeds; of what is no number, the first seed's
    intervals: dict[str, tuple[float, float]]  # 95 %, of the table's columns that have one
    paper: dict[str, Any]
    missing: str  # why there are no values, or not all: failed, not built, the paper's only; empty if every stage is there
    reason: str  # what failed, or which seeds are there, in one line
    recipes: dict[int, list[Recipe]]  # by seed, in the order of the row's grids
    measured: dict[int, dict[str, Measured]] = field(default_factory=dict)  # by seed and metric
    aside: bool = False  # in the CSV alone


@dataclass(frozen=True)
class Table:
    title: str
    columns: dict[str, dict[str, Any]]
    lines: dict[str, TableRow]
    claims: dict[str, dict[str, Any]]
    asks: str = ""  # the question that the table answers
    reading: dict[str, str] = field(
        default_factory=dict
    )  # by scale: what holds there, what does not, and why
    grids: tuple[str, ...] = ()
    account: tuple[str, ...] = ()  # the columns that stand in a second table below


def table_names() -> list[str]:
    """The paper's tables, then ours."""
    return sorted(
        (path.stem for path in EXPERIMENTS.glob("*.yaml")),
        key=lambda name: (not name.startswith("table"), name),
    )


def table_spec(name: str) -> dict[str, Any]:
    return yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())


def read_table(name: str, overrides: list[str]) -> Table:
    """A table as the store has it now, each line over every seed among the overrides. Cells that are not built say why."""
    about = table_spec(name)
    store = store_of(overrides)
    columns, account = about["columns"] | about.get("account", {}), tuple(about.get("account", {}))
    lines = {
        key: _line(store, row, about | {"columns": columns}, row_recipes(key, row, overrides))
        for key, row in about["rows"].items()
    }
    return Table(
        about["title"],
        columns,
        lines,
        about["claims"],
        about["asks"],
        about.get("reading", {}),
        _grids(about),
        account,
    )


def _grids(about: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(grid for row in about["rows"].values() for grid in row["grids"] or [])
    )


def row_recipes(key: str, row: dict[str, Any], overrides: list[str]) -> dict[int, list[Recipe]]:
    """The recipes of a row by seed, in the order of its grids; none if the overrides leave the row out of them.

    A speed is measured in the first seed alone: a clock needs the machine to itself, and its spread is over prompts and rounds."""
    wanted = {name: str(value) for name, value in row.get("when", {}).items()}
    found: dict[int, list[Recipe]] = {}
    for experiment in row["grids"] or []:
        words = first_seed(overrides) if experiment.startswith("speed") else overrides
        rows = [
            item
            for item in _rows(experiment, tuple(words))
            if wanted.items() <= item.overrides.items()
        ]
        of_seeds = [int(item.overrides.get("seed", seeds(overrides)[0])) for item in rows]
        if len(set(of_seeds)) < len(rows):
            raise ValueError(
                f"{len(rows)} rows of {experiment} are {key}, a table shows one a seed: "
                "give one value to every override but seed, e.g. distill.tau=2"
            )
        for seed, item in zip(of_seeds, rows):
            found.setdefault(seed, []).append(item.recipe)
    return {seed: found[seed] for seed in seeds(overrides) if seed in found}


def seeds(overrides: list[str]) -> list[int]:
    """Those that a command line sweeps over, or the one that it or run.yaml sets."""
    words = [word for word in overrides if word.startswith("seed=")]
    if not words:
        return [yaml.safe_load((compose.CONF / "run.yaml").read_text())["seed"]]
    return [
        int(word.removeprefix("seed=")) for _, job in sweep.combinations(words[-1:]) for word in job
    ]


def first_seed(overrides: list[str]) -> list[str]:
    """The same command line at its first seed alone."""
    return overrides if len(seeds(overrides)) == 1 else [*overrides, f"seed={seeds(overrides)[0]}"]


def store_of(overrides: list[str]) -> Store:
    """The store that a command line names: any row of it says which."""
    return Store(_rows("", tuple(first_seed(overrides)))[0].runtime.store)


@cache
def _rows(experiment: str, overrides: tuple[str, ...]) -> list[sweep.Job]:
    return sweep.jobs([*([f"experiment={experiment}"] if experiment else []), *overrides])


def _line(
    store: Store, row: dict[str, Any], about: dict[str, Any], goals: dict[int, list[Recipe]]
) -> TableRow:
    paper = row.get("paper", {})
    if row["grids"] is None:
        return TableRow(paper["name"], {}, {}, {}, paper, "the paper's only", "", {})
    if not goals:
        return TableRow(paper.get("name", str(row["when"])), {}, {}, {}, paper, "not swept", "", {})
    measured = {
        seed: found for seed, of_seed in goals.items() if (found := _measured(store, of_seed))
    }
    first = next(iter(goals.values()))
    settings = {
        title: _setting(row["when"], first, path) for title, path in about["settings"].items()
    }
    note = f" ({row['note']})" if "note" in row else ""
    by_metric = {
        metric: [found[metric] for found in measured.values() if metric in found]
        for found in measured.values()
        for metric in found
    }
    values = {
        metric: _mean([one.value for one in of_seeds]) for metric, of_seeds in by_metric.items()
    }
    return TableRow(
        _label(first, about["label"]) + note,
        settings,
        values,
        _intervals(by_metric, about["columns"]),
        paper,
        *_missing(store, goals, measured),
        goals,
        measured,
        row.get("aside", False),
    )


def _measured(store: Store, goals: list[Recipe]) -> dict[str, Measured]:
    """The metrics of one seed, and as `model.METRIC` those of what a goal reads; where two goals have one of the same name, the first goal's."""
    found: dict[str, Measured] = {}
    for goal in (goal for goal in goals if store.holds(goal.name)):
        sampled = statistics(store.folder(goal.name) / "predictions.jsonl")
        read = {
            key: value.name for key, value in goal.arguments.items() if isinstance(value, Recipe)
        }
        of_read = {
            f"{key}.{metric}": Measured(value)
            for key, name in read.items()
            for metric, value in store.metrics(name).items()
        }
        found = (
            {
                metric: Measured(value, sampled.get(metric))
                for metric, value in store.metrics(goal.name).items()
            }
            | of_read
            | found
        )
    return found


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mean(values: list[Any]) -> Any:
    """Over the seeds; a value that is the same in all, or no number, as it is."""
    return fmean(values) if all(map(is_number, values)) and len(set(values)) > 1 else values[0]


def _intervals(
    by_metric: dict[str, list[Measured]], columns: dict[str, Any]
) -> dict[str, tuple[float, float]]:
    found = {}
    for metric in columns:
        of_seeds = by_metric.get(metric, [])
        if of_seeds and all(is_number(one.value) for one in of_seeds):
            effect = bootstrap.effect([[one] for one in of_seeds], lambda terms: terms[0])
            found |= (
                {metric: (effect.low, effect.high)} if effect.low == effect.low else {}
            )  # NaN: nothing says how it varies
    return found


def _missing(
    store: Store, goals: dict[int, list[Recipe]], measured: dict[int, dict[str, Measured]]
) -> tuple[str, str]:
    """Why goals are not there: a stage of their ancestry failed, and which, or nobody has built them yet."""
    unbuilt = [goal for of_seed in goals.values() for goal in of_seed if not store.holds(goal.name)]
    reasons = [
        store.unfinished(name) / "reason.txt"
        for goal in unbuilt
        for name in goal.ancestry()
        if not store.holds(name)
    ]
    failed = [f"{path.parent.name} failed: {path.read_text()}" for path in reasons if path.exists()]
    built = [
        str(seed)
        for seed, of_seed in goals.items()
        if any(store.holds(goal.name) for goal in of_seed)
    ]
    partly = (
        f"of seeds {', '.join(map(str, goals))} only {', '.join(built)} built"
        if 0 < len(built) < len(goals)
        else ""
    )
    return ("failed", failed[0]) if failed else ("not built" if unbuilt else "", partly)


def _setting(when: dict[str, Any], goals: list[Recipe], path: str) -> str:
    """What a row swept, by `when.KEY`, or a setting by its path through the recipe and its parents; `-` where there is no such thing."""
    if path.startswith("when."):
        return str(when.get(path.removeprefix("when."), "-"))
    value: Any = goals[0]
    for part in path.split("."):
        arguments = value.arguments if isinstance(value, Recipe) else value
        value = arguments.get(part) if isinstance(arguments, dict) else None
    return "-" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _label(goals: list[Recipe], path: str) -> str:
    value = goals[0].arguments[path]
    if isinstance(value, Recipe):
        return labels.label(value)
    if value is None:
        return "None"
    return getattr(decoder_settings, value["_target_"].rpartition(".")[2]).label
