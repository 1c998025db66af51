"""Write a table as Markdown, CSV and LaTeX, with its claims' verdicts and where it comes from. Knows cells, not how they were measured."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from soaes.metrics.bootstrap import Effect
from soaes.pipeline.dry_run import mixed_code
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report.claims import ClaimResult, Comparison, judge
from soaes.report.results import Table, TableRow, is_number

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
    tables: dict[str, Table], name: str, store: Store, folder: Path, page: Sequence[str] = ()
) -> str:
    """Markdown; the same with what else its page has, a CSV and a LaTeX file are written to `folder`."""
    table = tables[name]
    header, body = _cells(
        table, [column for column in table.columns if column not in table.account]
    )
    account = (
        ["Where the speed comes from:", "", _markdown(*_cells(table, table.account))]
        if table.account
        else []
    )
    cells = [[_markdown(header, body)], account, _notes(table)]
    parts = [
        [f"## {table.title}"],
        [table.asks],
        *cells,
        _claims(judge(tables, name)),
        _origin(table, store),
    ]
    text = "\n\n".join("\n".join(part) for part in parts if any(part))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n\n".join([text, *page]) + "\n")
    (folder / f"{name}.tex").write_text(_latex(header, body))
    _write_csv(folder / f"{name}.csv", _numbers(table))
    return text


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows(rows)


# ---------------------------------------------------------------- cells


def _settings(table: Table) -> list[str]:
    return list(next((line.settings for line in table.lines.values() if line.recipes), {}))


def _in_paper(table: Table) -> set[str]:
    return {column for line in table.lines.values() for column in line.paper}


def _cells(table: Table, columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Ours, with its interval, and, where the paper has the column, the paper's value beside it."""
    settings, in_paper = _settings(table), _in_paper(table)
    header = ["Model", *settings]
    for column in columns:
        title = table.columns[column]["title"]
        header += [title, "paper"] if column in in_paper else [title]
    body = []
    for line in table.lines.values():
        if line.aside:
            continue  # in the CSV alone
        row = [line.label, *(line.settings.get(key, "-") for key in settings)]
        for column in columns:
            digits = table.columns[column]["digits"]
            row.append(_cell(line, column, digits))
            if column in in_paper:
                row.append(_number(line.paper.get(column), digits))
        body.append(row)
    return header, body


def _cell(line: TableRow, column: str, digits: int) -> str:
    """`45.85 ±4.56`, half the width of the 95 % interval, whose ends are in the CSV; why there is none; `-` where the row has no such thing."""
    if column not in line.values:
        return line.missing or ("missing" if "missing" in line.values else "-")
    low, high = line.intervals.get(column, (None, None))
    return _number(line.values[column], digits) + (
        "" if low is None or low == high else f" ±{(high - low) / 2:.{digits}f}"
    )


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}" if is_number(value) else str(value)


def _numbers(table: Table) -> list[list[Any]]:
    """The CSV: of each metric its value, the ends of its interval and the paper's value, a column each; empty where there is none."""
    settings, in_paper = _settings(table), _in_paper(table)
    parts = {
        column: ["", "_low", "_high", *(["_paper"] if column in in_paper else [])]
        for column in table.columns
    }
    rows: list[list[Any]] = [
        [
            "row",
            "model",
            *settings,
            *(f"{column}{part}" for column in parts for part in parts[column]),
            "seeds",
            "missing",
        ]
    ]
    for key, line in table.lines.items():
        cells = [
            _plain(
                {
                    "": line.values.get(column),
                    "_paper": line.paper.get(column),
                    **_ends(line, column),
                }[part]
            )
            for column in parts
            for part in parts[column]
        ]
        rows.append(
            [
                key,
                line.label,
                *(line.settings.get(name, "") for name in settings),
                *cells,
                len(line.measured),
                line.missing,
            ]
        )
    return rows


def _ends(line: TableRow, column: str) -> dict[str, float | None]:
    return dict(zip(("_low", "_high"), line.intervals.get(column, (None, None))))


def _plain(value: Any) -> Any:
    return (
        ""
        if value is None
        else f"{value:.6g}"
        if is_number(value) and isfinite(value)
        else ""
        if is_number(value)
        else value
    )


def _notes(table: Table) -> list[str]:
    """What a reader must know of some cells: why they are missing, what was left out, and of which rows."""
    rows: dict[str, list[str]] = {}
    for key, line in table.lines.items():
        num_skipped, scored = line.values.get("num_skipped", 0), line.values.get("samples", 0)
        notes = [
            line.reason,
            f"missing: {line.values['missing']}" if "missing" in line.values else "",
            f"{num_skipped:g} of {num_skipped + scored:g} samples are left out: too long for the model's positions"
            if num_skipped
            else "",
        ]
        for note in filter(None, notes):
            rows.setdefault(note, []).append(key)
    return [f"- {note} ({', '.join(keys)})" for note, keys in sorted(rows.items())]


def _markdown(header: list[str], body: list[list[str]]) -> str:
    widths = [max(len(row[at]) for row in [header, *body]) for at in range(len(header))]
    rows = [
        "| "
        + " | ".join(text + " " * (width - len(text)) for text, width in zip(row, widths))
        + " |"
        for row in [header, *body]
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])


def _latex(header: list[str], body: list[list[str]]) -> str:
    escape = str.maketrans({"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "±": r"$\pm$"})
    first, *rest = [
        " & ".join(text.translate(escape) for text in row) + r" \\" for row in [header, *body]
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    return "\n".join([begin, r"\hline", first, r"\hline", *rest, r"\hline", r"\end{tabular}", ""])


# ---------------------------------------------------------------- claims


def _claims(verdicts: list[ClaimResult]) -> list[str]:
    if not verdicts:
        return []
    lines = [
        "Claims, each with its verdict and, pair by pair, the effect with its 95 % interval:",
        "",
    ]
    for found in verdicts:
        lines.append(f"- **{found.claim} {found.verdict}**: {found.text}")
        lines += [
            f"  - {pair.text}: {_effect(pair.effect)} (paper {_signed(pair.paper)}){_other(pair, found)}"
            for pair in found.pairs
        ]
    return lines


def _other(pair: Comparison, found: ClaimResult) -> str:
    """A pair's own verdict, where the claim's is another."""
    return "" if pair.verdict == found.verdict else f", {pair.verdict}"


def _effect(effect: Effect | None) -> str:
    if effect is None:
        return "not measured"
    return _signed(effect.value) + (
        f" [{_signed(effect.low)}, {_signed(effect.high)}]"
        if isfinite(effect.low)
        else " (no interval)"
    )


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}"


def write_verdicts(tables: dict[str, Table], scale: str, folder: Path) -> str:
    """Every claim's verdict as one Markdown table; verdicts.csv, a line a claim, is written to `folder`. A claim is shown by its weakest pair."""
    of_table = {name: judge(tables, name) for name in tables}
    found = [verdict for judged in of_table.values() for verdict in judged]
    rows = [[*_fields(one, scale), name] for name, judged in of_table.items() for one in judged]
    _write_csv(folder / "verdicts.csv", [list(VERDICT_COLUMNS), *rows])
    body = [
        [
            one.claim,
            one.verdict,
            one.text,
            _effect(one.weakest.effect),
            _signed(one.weakest.paper),
            str(one.weakest.effect.seeds if one.weakest.effect else 0),
        ]
        for one in found
    ]
    return "## Verdicts\n\n" + _markdown(
        ["Claim", "Verdict", "What it says", "Weakest pair's effect", "Paper", "Seeds"], body
    )


def _fields(one: ClaimResult, scale: str) -> list[Any]:
    pair, effect = one.weakest, one.weakest.effect
    numbers = [effect.value, effect.low, effect.high] if effect else [None, None, None]
    return [
        one.claim,
        one.verdict,
        *map(_plain, numbers),
        _plain(pair.paper),
        effect.seeds if effect else 0,
        scale,
        pair.text,
        one.text,
    ]


# ---------------------------------------------------------------- where it comes from


def _origin(table: Table, store: Store) -> list[str]:
    """Seeds, commit and machine of the measured rows, and a warning where rows of one table come from different code."""
    goals = [
        goal
        for line in table.lines.values()
        for of_seed in line.recipes.values()
        for goal in of_seed
    ]
    made = [store.manifest(goal.name) for goal in goals if store.holds(goal.name)]
    if not made:
        return ["Nothing of this table is built."]
    seeds = sorted({seed for line in table.lines.values() for seed in line.measured})
    facts = {
        key: ", ".join(sorted({manifest[key] for manifest in made}))
        for key in ("commit", "machine")
    }
    alone = (
        ["One seed: intervals cover the questions, not the training.  "] if len(seeds) == 1 else []
    )
    clock = [
        "Timings are of the first seed alone: their intervals cover the questions, not the training.  "
    ]
    clock = clock if len(seeds) > 1 and any(goal.stage == "speed" for goal in goals) else []
    differ = mixed_code(store, goals)
    warning = [
        "",
        f"Warning: {', '.join(differ)} in this table's ancestry come from different code; "
        "to have them made again, delete their folders and those built from them.",
    ]
    held_out = sorted({text for goal in goals for text in _general_text(goal, store)})
    origin = f"Seed {', '.join(map(str, seeds))}; commit {facts['commit']}; {facts['machine']}."
    return [*held_out, *alone, *clock, origin, *(warning if differ else [])]


def _general_text(recipe: Recipe, store: Store) -> list[str]:
    """Where the base model's text came from, if a user's folder had none of its own."""
    reports = [
        store.folder(name) / "curation_report.json"
        for name, parent in recipe.ancestry().items()
        if parent.stage == "files"
    ]
    general = [json.loads(path.read_text())["general"] for path in reports if path.exists()]
    return [
        f"General text: {about['source']}.  "
        for about in general
        if "held out" in about.get("source", "")
    ]
