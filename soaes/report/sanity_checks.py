"""What must be true of any sound smoke run, checked against the measured rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from soaes.metrics.estimators import AVERAGED_EXAMS
from soaes.pipeline import lineage
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report.results import Table

CHANCE = 25  # per cent, of four options


@dataclass(frozen=True)
class Check:
    """A statement about the means over seeds; one whose value is missing does not hold."""

    text: str  # with the numbers that it compares
    holds: bool


def check(tables: Mapping[str, Table], store: Store) -> list[Check]:
    """Check the tables of a smoke run.

    What a model that the user names knows is not known here: of it only training is checked.

    Args:
        tables: All tables of the paper, as they were read.
        store: Where the training stages behind them lie.
    """
    checks = [_perplexities(tables.values(), store)]
    if any(_begins_elsewhere(goal) for table in tables.values() for goal in _goals(table)):
        return checks
    checks += [_beats_chance(tables, exam) for exam in AVERAGED_EXAMS]
    stage1 = _cell(tables, "table2", "sft1", "rouge1")
    stage2 = _cell(tables, "table2", "sft2", "rouge1")
    text = f"stage 2 beats stage 1 in Rouge-1: {_written(stage2, 2)} > {_written(stage1, 2)}"
    checks.append(Check(text, stage2 > stage1))
    instruct = _cell(tables, "table4", "instruct", "acceptance_rate_per_position")
    distilled = _cell(tables, "table4", "alpha_05", "acceptance_rate_per_position")
    rates = f"{_written(distilled, 2)} > {_written(instruct, 2)}"
    text = f"the distilled draft's acceptance rate exceeds Instruct's: {rates}"
    checks.append(Check(text, distilled > instruct))
    return checks


def _goals(table: Table) -> list[Recipe]:
    return [goal for row in table.rows.values() for goal in row.goals]


def _begins_elsewhere(goal: Recipe) -> bool:
    """Tell whether a model behind a goal was not pre-trained here."""
    return any(stage.stage in lineage.GIVEN for stage in goal.ancestry().values())


def _cell(tables: Mapping[str, Table], table: str, row: str, column: str) -> float:
    """A mean over seeds; NaN, which no comparison holds for, where it is missing."""
    value = tables[table].rows[row].values.get(column)
    return float("nan") if value is None else value


def _written(value: float, digits: int) -> str:
    return "not built" if math.isnan(value) else f"{value:.{digits}f}"


def _beats_chance(tables: Mapping[str, Table], exam: str) -> Check:
    accuracy = _cell(tables, "table1", "target_base", exam)
    error = _cell(tables, "table1", "target_base", f"{exam}_standard_error")
    untrained = _cell(tables, "table1", "target_base", f"{exam}_untrained")
    chance = untrained if untrained > CHANCE else CHANCE
    numbers = f"{_written(accuracy, 1)} > {_written(chance, 1)} + 3 x {_written(error, 1)}"
    text = f"the base model beats chance on {exam} by 3 standard errors: {numbers}"
    return Check(text, accuracy > chance + 3 * error)


def _perplexities(tables: Iterable[Table], store: Store) -> Check:
    goals: list[Recipe] = [
        goal for table in tables for row in table.rows.values() for goal in row.goals
    ]
    names = sorted({name for goal in goals for name in goal.ancestry() if store.holds(name)})
    trained, risen = 0, []
    for name in names:
        metrics = store.metrics(name)
        if "val/perplexity_before" in metrics:
            trained += 1
            if not metrics["val/perplexity"] < metrics["val/perplexity_before"]:
                risen.append(name)
    text = "every training stage lowers its validation perplexity"
    numbers = f"{trained - len(risen)} of {trained}"
    exceptions = f"; not {', '.join(risen)}" if risen else ""
    return Check(f"{text}: {numbers}{exceptions}", trained > 0 and not risen)
