"""The floors under a smoke run: what must be true of any sound run, checked against the measured rows."""

from __future__ import annotations

from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report.results import Table


def check(tables: dict[str, Table], store: Store) -> list[tuple[str, bool]]:
    """(what is asked, with both numbers, whether it holds), of the means over seeds. A value that is missing is a floor that fails."""

    def cell(table: str, row: str, column: str) -> float:
        value = tables[table].lines[row].values.get(column)
        return float("nan") if value is None else value

    base = {
        exam: (
            cell("table1", "target_base", exam),
            cell("table1", "target_base", f"{exam}_standard_error"),
        )
        for exam in ("cmmlu", "ceval")
    }
    stage1, stage2 = cell("table2", "sft1", "rouge1"), cell("table2", "sft2", "rouge1")
    instruct, distilled = (
        cell("table4", row, "acceptance_rate_per_position") for row in ("instruct", "alpha_05")
    )
    return [
        *_perplexities(tables, store),
        *(
            (
                f"the base model beats chance on {exam} by 3 standard errors: {accuracy:.1f} > 25 + 3 x {error:.1f}",
                accuracy > 25 + 3 * error,
            )
            for exam, (accuracy, error) in base.items()
        ),
        (f"stage 2 beats stage 1 in Rouge-1: {stage2:.2f} > {stage1:.2f}", stage2 > stage1),
        (
            f"the distilled draft's acceptance rate exceeds Instruct's: {distilled:.2f} > {instruct:.2f}",
            distilled > instruct,
        ),
    ]


def _perplexities(tables: dict[str, Table], store: Store) -> list[tuple[str, bool]]:
    goals: list[Recipe] = [
        goal
        for table in tables.values()
        for line in table.lines.values()
        for goals in line.recipes.values()
        for goal in goals
    ]
    names = sorted({name for goal in goals for name in goal.ancestry() if store.holds(name)})
    trained = {
        name: metrics
        for name in names
        if "val/perplexity_before" in (metrics := store.metrics(name))
    }
    risen = [
        name
        for name, metrics in trained.items()
        if not metrics["val/perplexity"] < metrics["val/perplexity_before"]
    ]
    text = f"every training stage lowers its validation perplexity: {len(trained) - len(risen)} of {len(trained)}"
    return [(f"{text}{'; not ' + ', '.join(risen) if risen else ''}", bool(trained) and not risen)]
