"""The summary of experiments/: the verdicts of every scale in one CSV, and README.md.

Reads the CSV files beside the tables; knows no store.
"""

from __future__ import annotations

import csv
from pathlib import Path

from soaes.pipeline import store

TOP = """# What was measured

Each folder holds the results of one scale, written by `make publish SCALE=... SEEDS=...` and never
edited by hand. For every table it shows the question, the sweep that was run, our numbers beside
the paper's, a plot where one helps, the verdicts on the paper's claims, and how to read the
results. `tableN.yaml` in this folder describes how a table is read. `verdicts.csv` lists the
verdicts of all scales; `make stale` lists committed tables that no longer match `conf/`.

Where a folder has `results.tar.xz`, it holds all that its tables were read from, but the models:
`python -m soaes.archive experiments/tiny/results.tar.xz --into published` makes of it a store for
`soaes.table`, `soaes.report` and `soaes.diff` (`runtime.store=published`).

A claim compares two measurements, or several pairs of them. It **holds** if the 95 % interval of
every difference lies on the claim's side of zero, **fails** if one lies on the other side, and is
**undecided** otherwise. The table below shows the difference that decides; the table's own page
shows all of them.
"""

Rows = list[dict[str, str]]  # of a verdicts.csv


def write(root: Path) -> None:
    """Write root/verdicts.csv and root/README.md from the verdicts of every scale.

    Args:
        root: experiments/, with a folder SCALE/ for each published scale. The scale of most seeds
            comes first and is shown in full.
    """
    rows = {path.parent: _read(path) for path in root.glob("*/verdicts.csv")}
    folders = sorted(sorted(rows), key=lambda folder: -_seeds(rows[folder]))
    all_rows = [row for folder in folders for row in rows[folder]]
    with open(root / "verdicts.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(all_rows[0]))
        writer.writeheader()
        writer.writerows(all_rows)
    first, *others = folders
    parts = [
        TOP,
        f"## `{first.name}`: {_command(first)}\n",
        f"All of it: [{first.name}/]({first.name}/){_page(first)}.\n",
        _table(first, rows[first]),
        *(_summary(folder, rows[folder]) for folder in others),
    ]
    store.write_text(root / "README.md", "\n".join(parts) + "\n")


def _read(path: Path) -> Rows:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _seeds(rows: Rows) -> int:
    return max(int(row["seeds"]) for row in rows)


def _command(folder: Path) -> str:
    record = store.read_json(folder / "recipes.json")
    return f"measured with `{' '.join(record['overrides'])}`"


def _table(folder: Path, rows: Rows) -> str:
    columns = ["claim", "what the paper says", "verdict here", "effect [95 % interval]"]
    header = f"| {' | '.join([*columns, 'paper', 'seeds'])} |"
    body = [_table_row(folder, row) for row in rows]
    return "\n".join([header, "|---|---|---|---|---|---|", *body, ""])


def _table_row(folder: Path, row: dict[str, str]) -> str:
    cells = [
        f"[{row['claim']}]({folder.name}/{row['table']}.md)",
        row["text"],
        f"**{row['verdict']}**",
        _effect(row),
        _short(row["paper_effect"]),
        row["seeds"],
    ]
    return f"| {' | '.join(cells)} |"


def _effect(row: dict[str, str]) -> str:
    effect = _short(row["effect"])
    if row["low"]:
        return f"{effect} [{_short(row['low'])}, {_short(row['high'])}]"
    return effect or "-"


def _short(number: str) -> str:
    return f"{float(number):+.3g}" if number else ""


def _summary(folder: Path, rows: Rows) -> str:
    """One line on a scale: how many claims have each verdict."""
    parts = []
    for verdict in ("holds", "fails", "undecided", "not measured"):
        count = sum(row["verdict"] == verdict for row in rows)
        if count:
            parts.append(f"{count} {verdict}")
    verdicts = ", ".join(parts)
    return f"`{folder.name}` ({_command(folder)}): {verdicts}; see `verdicts.csv`{_page(folder)}."


def _page(folder: Path) -> str:
    """Return the words that link the scale's report, if it is published."""
    path = f"{folder.name}/report.html"
    return f" and [{path}]({path})" if (folder / "report.html").exists() else ""
