"""The one-screen summary of experiments/: every scale's verdicts in one CSV, and README.md with the largest scale's. Reads CSV, knows no store."""

from __future__ import annotations

import csv
import json
from pathlib import Path

TOP = """# What was measured

One folder a scale, the output of `make publish SCALE=... SEEDS=...` and of nothing else: of each table what it asks, the sweep, our
numbers beside the paper's, a plot where it says more, the verdicts and how to read them. How a table is read stands in `tableN.yaml`
here. `verdicts.csv` has every scale's verdicts; `make stale` tells which committed tables are not of today's `conf/`.

A claim **holds** if the 95 % interval of each of its differences lies on the claim's side of zero, **fails** if one lies on the other
side, and is **undecided** else. The difference that decides is shown. Where a claim has several, the table's own page has them all.
"""


def write(root: Path) -> None:
    """root/verdicts.csv and root/README.md from root/SCALE/verdicts.csv of every scale that has one, the scale of most seeds first."""
    folders = sorted(
        (path.parent for path in root.glob("*/verdicts.csv")),
        key=lambda folder: -_seeds(_read(folder)),
    )
    found = {folder: _read(folder) for folder in folders}
    lines = [line for rows in found.values() for line in rows]
    with open(root / "verdicts.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    first, *others = found
    parts = [
        TOP,
        f"## `{first.name}`: {_told(first)}\n",
        _table(first, found[first]),
        *(_line(folder, found[folder]) for folder in others),
    ]
    (root / "README.md").write_text("\n".join(parts) + "\n")


def _read(folder: Path) -> list[dict[str, str]]:
    with open(folder / "verdicts.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def _seeds(rows: list[dict[str, str]]) -> int:
    return max(int(row["seeds"]) for row in rows)


def _told(folder: Path) -> str:
    about = json.loads((folder / "recipes.json").read_text())
    return f"measured with `{' '.join(about['overrides'])}`"


def _table(folder: Path, rows: list[dict[str, str]]) -> str:
    body = [
        f"| [{row['claim']}]({folder.name}/{row['table']}.md) | {row['text']} | **{row['verdict']}** | {_effect(row)} | "
        f"{_short(row['paper_effect'])} | {row['seeds']} |"
        for row in rows
    ]
    head = (
        "| claim | what the paper says | verdict here | effect [95 % interval] | paper's | seeds |"
    )
    return "\n".join([head, "|---|---|---|---|---|---|", *body, ""])


def _effect(row: dict[str, str]) -> str:
    return (
        f"{_short(row['effect'])} [{_short(row['low'])}, {_short(row['high'])}]"
        if row["low"]
        else _short(row["effect"]) or "-"
    )


def _short(number: str) -> str:
    return f"{float(number):+.3g}" if number else ""


def _line(folder: Path, rows: list[dict[str, str]]) -> str:
    counts = {
        word: sum(row["verdict"] == word for row in rows)
        for word in ("holds", "fails", "undecided", "not measured")
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"`{folder.name}` ({_told(folder)}): {told}; see `verdicts.csv`."
