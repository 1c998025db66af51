"""Write a table as Markdown, CSV and LaTeX, with its claims' verdicts and its origin.

Knows the values of cells, not how they were measured.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from soaes.metrics.bootstrap import Effect
from soaes.metrics.estimators import AVERAGED_EXAMS
from soaes.pipeline.dry_run import mixed_code
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, read_json
from soaes.report.claims import ClaimResult, Comparison, judge
from soaes.report.results import Table, TableRow, is_number

Line = list[str]  # the cells of a printed line

VERDICT_COLUMNS = (
    "claim",
    "verdict",
    "effect",
    "low",
    "high",
    "paper_effect",
    "seeds",
    "scale",
    "pair",
    "text",
    "table",
)


def write_table(
    tables: Mapping[str, Table], name: str, store: Store, folder: Path, page: Sequence[str] = ()
) -> str:
    """Write NAME.md, NAME.csv and NAME.tex.

    Args:
        tables: The table, and those whose rows its claims compare with.
        name: The table's name.
        store: Where the rows were read, for their origin.
        folder: Where the files go.
        page: Further paragraphs of the Markdown file.

    Returns:
        The Markdown without `page`, to be printed where the output is no terminal.
    """
    table = tables[name]
    header, body = _cells(table, list(table.spec.columns))
    breakdown: list[str] = []
    if table.spec.breakdown:
        markdown = _markdown(*_cells(table, list(table.spec.breakdown)))
        breakdown = ["Where the speed comes from:", "", markdown]
    parts = [
        [f"## {table.spec.title}"],
        [table.spec.asks],
        [_markdown(header, body)],
        breakdown,
        [f"- {note}" for note in notes(table)],
        _claims(judge(tables, name)),
        origin_lines([table], store),
    ]
    text = "\n\n".join("\n".join(part) for part in parts if any(part))
    folder.mkdir(parents=True, exist_ok=True)
    markdown_page = "\n\n".join([text, *page])
    (folder / f"{name}.md").write_text(markdown_page + "\n", encoding="utf-8")
    (folder / f"{name}.tex").write_text(_latex(header, body), encoding="utf-8")
    _write_csv(folder / f"{name}.csv", _numbers(table))
    return text


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)


# ---------------------------------------------------------------- cells


def setting_titles(table: Table) -> list[str]:
    """List the titles of the settings, none if no row of the table was swept."""
    swept = any(row.recipes for row in table.rows.values())
    return list(table.spec.settings) if swept else []


def columns_of_paper(table: Table) -> set[str]:
    """Return the columns of which the paper has a value in some row."""
    return {column for row in table.rows.values() for column in row.paper}


def _cells(table: Table, columns: Sequence[str]) -> tuple[Line, list[Line]]:
    """Our values with their intervals and, where the paper has the column, its value beside."""
    settings, in_paper = setting_titles(table), columns_of_paper(table)
    specs = table.spec.all_columns
    header = ["Model", *settings]
    for column in columns:
        title = specs[column].title
        header += [title, "paper"] if column in in_paper else [title]
    body = []
    for row in table.rows.values():
        cells = [row.label, *(row.settings.get(key, "-") for key in settings)]
        for column in columns:
            digits = specs[column].digits
            cells.append(cell_text(row, column, digits))
            if column in in_paper:
                cells.append(number_text(row.paper.get(column), digits))
        body.append(cells)
    return header, body


def cell_text(row: TableRow, column: str, digits: int) -> str:
    """Format a cell: `45.85 ±4.56`, the value and half the width of its 95 % interval.

    The CSV has the interval's ends. Without a value, why there is none; `-` where the row has no
    such metric.
    """
    if column not in row.values:
        return row.missing or ("missing" if "missing" in row.values else "-")
    number = number_text(row.values[column], digits)
    low, high = row.intervals.get(column, (None, None))
    if low is None or high is None or low == high:
        return number
    return f"{number} ±{(high - low) / 2:.{digits}f}"


def number_text(value: Any, digits: int) -> str:
    """Format a number with its decimals; `-` for none."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if is_number(value) else str(value)


def _numbers(table: Table) -> list[list[Any]]:
    """The CSV: of each metric its value, the ends of its interval and the paper's value."""
    settings, in_paper = setting_titles(table), columns_of_paper(table)
    columns = list(table.spec.all_columns)
    header: list[Any] = ["row", "model", *settings]
    for column in columns:
        header += [column, f"{column}_low", f"{column}_high"]
        if column in in_paper:
            header.append(f"{column}_paper")
    rows = [[*header, "seeds", "missing"]]
    for key, row in table.rows.items():
        cells: list[Any] = [key, row.label]
        cells += [row.settings.get(name, "") for name in settings]
        for column in columns:
            low, high = row.intervals.get(column, (None, None))
            cells += [_plain(row.values.get(column)), _plain(low), _plain(high)]
            if column in in_paper:
                cells.append(_plain(row.paper.get(column)))
        rows.append([*cells, len(row.measured), row.missing])
    return rows


def _plain(value: Any) -> Any:
    """A value in a CSV: numbers to six digits, nothing where there is none."""
    if value is None:
        return ""
    if not is_number(value):
        return value
    return f"{value:.6g}" if isfinite(value) else ""


def notes(table: Table) -> list[str]:
    """Say why cells are missing and what was left out, each note with the rows it concerns."""
    keys_by_note: dict[str, list[str]] = {}
    for key, row in table.rows.items():
        for note in _notes_of(row):
            keys_by_note.setdefault(note, []).append(key)
    return [f"{note} ({', '.join(keys)})" for note, keys in sorted(keys_by_note.items())]


def _notes_of(row: TableRow) -> list[str]:
    notes = [row.reason] if row.reason else []
    if "missing" in row.values:
        notes.append(f"missing: {row.values['missing']}")
    if num_skipped := row.values.get("num_skipped", 0):
        left_out = f"{num_skipped:g} samples"
        if "samples" in row.values:  # else prompts are drawn from those that fit
            left_out = f"{num_skipped:g} of {num_skipped + row.values['samples']:g} samples"
        notes.append(f"{left_out} are left out: too long for the model's positions")
    if num_cut := row.values.get("num_cut", 0):
        answers = row.values.get("samples", row.values.get("prompts", 0))
        notes.append(f"{num_cut:g} of {answers:g} answers are cut at max_new_tokens")
    if near_tie_answers := row.values.get("near_tie_answers"):
        notes.append(
            f"{near_tie_answers:.3g} % of the greedy answers leave autoregression's at a near tie"
        )
    untrained = [
        f"{exam} {row.values[f'{exam}_untrained']:.1f}"
        for exam in AVERAGED_EXAMS
        if f"{exam}_untrained" in row.values
    ]
    if untrained:
        notes.append(f"chance, measured with models of random weights: {', '.join(untrained)}")
    return notes


def _markdown(header: list[str], body: list[list[str]]) -> str:
    rows = [header, *body]
    widths = [max(len(row[index]) for row in rows) for index in range(len(header))]
    lines = []
    for row in rows:
        padded = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(padded)} |")
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _latex(header: list[str], body: list[list[str]]) -> str:
    escapes = str.maketrans({"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "±": r"$\pm$"})
    lines = [
        " & ".join(text.translate(escapes) for text in row) + r" \\" for row in [header, *body]
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    top = [begin, r"\hline", lines[0], r"\hline"]
    return "\n".join([*top, *lines[1:], r"\hline", r"\end{tabular}", ""])


# ---------------------------------------------------------------- claims


def _claims(results: list[ClaimResult]) -> list[str]:
    if not results:
        return []
    head = "Claims, each with its verdict and, pair by pair, the effect with its 95 % interval:"
    lines = [head, ""]
    for result in results:
        lines.append(f"- **{result.claim} {result.verdict}**: {result.text}")
        lines += [_pair_line(pair, result) for pair in result.pairs]
        for metric, other in result.also.items():
            weakest = other.weakest
            effect = f"{weakest.text}: {effect_text(weakest.effect)}"
            lines.append(f"  - beside the claim, by {metric}: {other.verdict}; {effect}")
    return lines


def _pair_line(pair: Comparison, result: ClaimResult) -> str:
    own_verdict = "" if pair.verdict == result.verdict else f", {pair.verdict}"
    effect = effect_text(pair.effect)
    return f"  - {pair.text}: {effect} (paper {signed_text(pair.paper)}){own_verdict}"


def effect_text(effect: Effect | None) -> str:
    """Format an effect: `+1.25 [+0.3, +2.2]`."""
    if effect is None:
        return "not measured"
    value = signed_text(effect.value)
    if not isfinite(effect.low):
        return f"{value} (no interval)"
    return f"{value} [{signed_text(effect.low)}, {signed_text(effect.high)}]"


def signed_text(value: float | None) -> str:
    """Format an effect's value: three significant digits and the sign."""
    return "-" if value is None else f"{value:+.3g}"


def write_verdicts(tables: Mapping[str, Table], scale: str, folder: Path) -> str:
    """Write verdicts.csv, a line for each claim; a claim is shown by its weakest pair.

    Returns:
        The verdicts as a Markdown table, to be printed where the output is no terminal.
    """
    results = {name: judge(tables, name) for name in tables}
    lines: list[list[Any]] = [list(VERDICT_COLUMNS)]
    body = []
    for name, of_table in results.items():
        for result in of_table:
            lines.append([*_fields(result, scale), name])
            body.append(_verdict_row(result))
    _write_csv(folder / "verdicts.csv", lines)
    header = ["Claim", "Verdict", "What it says", "Weakest pair's effect", "Paper", "Seeds"]
    return "## Verdicts\n\n" + _markdown(header, body)


def _verdict_row(result: ClaimResult) -> list[str]:
    pair = result.weakest
    seeds = pair.effect.seeds if pair.effect else 0
    numbers = [effect_text(pair.effect), signed_text(pair.paper), str(seeds)]
    return [result.claim, result.verdict, result.text, *numbers]


def _fields(result: ClaimResult, scale: str) -> list[Any]:
    pair, effect = result.weakest, result.weakest.effect
    numbers = [effect.value, effect.low, effect.high] if effect else [None, None, None]
    plain = [_plain(number) for number in [*numbers, pair.paper]]
    seeds = effect.seeds if effect else 0
    return [result.claim, result.verdict, *plain, seeds, scale, pair.text, result.text]


# ---------------------------------------------------------------- where it comes from


def origin_lines(tables: Sequence[Table], store: Store) -> list[str]:
    """Say the seeds, commit and machine of tables' rows, and warn where their code differs."""
    rows = [row for table in tables for row in table.rows.values()]
    goals = [goal for row in rows for goal in row.goals]
    manifests = [store.manifest(goal.name) for goal in goals if store.holds(goal.name)]
    if not manifests:
        return ["Nothing of this is built."]
    seeds = sorted({seed for row in rows for seed in row.measured})
    commits, machines = (
        ", ".join(sorted({manifest[key] for manifest in manifests}))
        for key in ("commit", "machine")
    )
    lines = sorted({text for goal in goals for text in _general_text(goal, store)})
    if len(seeds) == 1:
        lines.append("One seed: intervals cover the questions, not the training.  ")
    else:
        few_seeds = [_few_seeds_text(table, store) for table in tables]
        lines += dict.fromkeys(text for text in few_seeds if text)
    lines.append(f"Seed {', '.join(map(str, seeds))}; commit {commits}; {machines}.")
    if differing := mixed_code(store, goals):
        lines += [
            "",
            f"Warning: {', '.join(differing)} in the ancestry of these rows come from different "
            "code; to have them made again, delete their folders and those built from them.",
        ]
    return lines


def _general_text(recipe: Recipe, store: Store) -> list[str]:
    """Where the base model's text came from, if a user's folder had none of its own."""
    lines = []
    for name, parent in recipe.ancestry().items():
        report = store.folder(name) / "curation_report.json"
        if parent.stage == "files" and report.exists():
            source = read_json(report)["general"].get("source", "")
            if "held out" in source:
                lines.append(f"General text: {source}.  ")
    return lines


def _few_seeds_text(table: Table, store: Store) -> str:
    """The seeds in which the goals of `few_seeds` were measured; empty where none was."""
    few = table.spec.few_seeds
    seeds = set()
    for row in table.rows.values():
        for seed, goals in row.recipes.items():
            if any(store.holds(goals[goal].name) for goal in few if goal in goals):
                seeds.add(seed)
    if not seeds:
        return ""
    return f"Of {', '.join(few)}: seed {', '.join(map(str, sorted(seeds)))}.  "
