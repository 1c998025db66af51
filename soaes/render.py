"""Write a table as Markdown, CSV and LaTeX, with what it claims and where it comes from. Knows cells, not how they were measured."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soaes.plan import mixed
from soaes.recipe import Recipe, Store


@dataclass(frozen=True)
class Line:
    """One row of a table: what we measured, or why not, beside what the paper has."""

    label: str
    settings: dict[str, str]
    values: dict[str, Any]
    paper: dict[str, Any]
    missing: str  # why there are no values: failed, not built, the paper's only; empty if there are
    reason: str  # what failed, in one line
    recipe: Recipe | None


@dataclass(frozen=True)
class Table:
    title: str
    columns: dict[str, dict[str, Any]]
    lines: dict[str, Line]
    claims: dict[str, dict[str, Any]]


def render(tables: dict[str, Table], name: str, store: Store, folder: Path) -> str:
    """Markdown; the same, a CSV and a LaTeX file are written to `folder`."""
    table = tables[name]
    header, body = _cells(table)
    reasons = [f"- {note}" for note in sorted({note for line in table.lines.values() for note in _notes(line)})]
    parts = [[f"## {table.title}"], [_markdown(header, body)], reasons, _claims(tables, table), _origin(table, store)]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text + "\n")
    (folder / f"{name}.tex").write_text(_latex(header, body))
    with open(folder / f"{name}.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([header, *body])
    return text


def _cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Ours and, where the paper has the column, the paper's value beside it."""
    settings = list(next((line.settings for line in table.lines.values() if line.recipe), {}))
    in_paper = {column for line in table.lines.values() for column in line.paper}
    header = ["Model", *settings]
    for column, about in table.columns.items():
        header += [about["title"], "paper"] if column in in_paper else [about["title"]]
    body = []
    for line in table.lines.values():
        row = [line.label, *(line.settings.get(key, "-") for key in settings)]
        for column, about in table.columns.items():
            row.append(_cell(line, column, about["digits"]))
            if column in in_paper:
                row.append(_number(line.paper.get(column), about["digits"]))
        body.append(row)
    return header, body


def _cell(line: Line, column: str, digits: int) -> str:
    unknown = "missing" in line.values and column not in line.values
    return line.missing or ("missing" if unknown else _number(line.values.get(column), digits))


def _notes(line: Line) -> list[str]:
    """What a reader must know of a row's cells: why they are missing, what was left out."""
    left_out, scored = line.values.get("left_out", 0), line.values.get("samples", 0)
    notes = [line.reason, f"missing: {line.values['missing']}" if "missing" in line.values else "",
             f"{left_out} of {left_out + scored} samples are left out: too long for the model's positions" if left_out else ""]
    return [note for note in notes if note]


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}" if isinstance(value, (int, float)) else str(value)


def _markdown(header: list[str], body: list[list[str]]) -> str:
    widths = [max(len(row[at]) for row in [header, *body]) for at in range(len(header))]
    rows = ["| " + " | ".join(text + " " * (width - len(text)) for text, width in zip(row, widths)) + " |" for row in [header, *body]]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])


def _latex(header: list[str], body: list[list[str]]) -> str:
    escape = str.maketrans({"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#"})
    first, *rest = [" & ".join(text.translate(escape) for text in row) + r" \\" for row in [header, *body]]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    return "\n".join([begin, r"\hline", first, r"\hline", *rest, r"\hline", r"\end{tabular}", ""])


def _claims(tables: dict[str, Table], table: Table) -> list[str]:
    """A claim's pairs as differences: ours and the paper's. One run has no interval, so this is a direction, not a verdict."""
    lines = ["Claims, as the sign of each difference in this one run (no interval, so no verdict):", ""]
    for key, claim in table.claims.items():
        effects = [_effect(tables, table, pair, "values") for pair in claim["pairs"]]
        papers = [_effect(tables, table, pair, "paper") for pair in claim["pairs"]]
        parts = [f"{_signed(ours)} (paper {_signed(theirs)})" for ours, theirs in zip(effects, papers)]
        lines.append(f"- {key} {claim['text']}: {', '.join(parts)}")
    return lines


def _effect(tables: dict[str, Table], table: Table, pair: list[str], source: str) -> float | None:
    left, right = (_quantity(tables, table, text, source) for text in pair)
    return None if left is None or right is None else left - right


def _quantity(tables: dict[str, Table], table: Table, text: str, source: str) -> float | None:
    """`row.metric`, `table.row.metric`, or the quotient of two."""
    values = []
    for term in text.split(" / "):
        *where, row, metric = term.split(".")
        line = (tables[where[0]] if where else table).lines[row]
        values.append(getattr(line, source).get(metric))
    if None in values:
        return None
    return values[0] if len(values) == 1 else values[0] / values[1] if values[1] else None


def _signed(value: float | None) -> str:
    return "missing" if value is None else f"{value:+.3g}"


def _origin(table: Table, store: Store) -> list[str]:
    """Commit and machine of the measured rows, and a warning where rows of one table come from different code."""
    made = [store.manifest(line.recipe.name) for line in table.lines.values() if line.recipe and not line.missing]
    if not made:
        return ["Nothing of this table is built."]
    seeds = sorted({str(line.recipe.arguments.get("seed", _seed(line.recipe))) for line in table.lines.values() if line.recipe})
    facts = {key: ", ".join(sorted({manifest[key] for manifest in made})) for key in ("commit", "machine")}
    differ = mixed(store, [line.recipe for line in table.lines.values() if line.recipe])
    warning = ["", f"Warning: {', '.join(differ)} in this table's ancestry come from different code; "
               "to have them made again, delete their folders and those built from them."]
    held_out = sorted({text for line in table.lines.values() if line.recipe for text in _general_text(line.recipe, store)})
    return [*held_out, f"Seed {', '.join(seeds)}; commit {facts['commit']}; {facts['machine']}.", *(warning if differ else [])]


def _general_text(recipe: Recipe, store: Store) -> list[str]:
    """Where the base model's text came from, if a user's folder had none of its own."""
    accounts = [store.folder(name) / "account.json" for name, parent in recipe.ancestry().items() if parent.stage == "files"]
    general = [json.loads(path.read_text())["general"] for path in accounts if path.exists()]
    return [f"General text: {about['source']}.  " for about in general if "held out" in about.get("source", "")]


def _seed(recipe: Recipe) -> Any:
    return next((parent.arguments["seed"] for parent in reversed(recipe.ancestry().values()) if "seed" in parent.arguments), "-")
