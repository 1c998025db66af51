"""A review as an export: soaes.data.annotation.item has the format; review.json stands beside it.

review.json holds how the review was done: its settings, the bound on what nobody read, agreement.
All of it follows from items, decisions and settings, so that an export that is imported and
exported again has the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soaes.data.annotation.item import DECISIONS, REVIEW, read_export, write_export
from soaes.pipeline.store import read_json, write_json
from soaes.review.account import account
from soaes.review.database import Changes, Database


def export(database: Database, folder: Path) -> dict[str, Any]:
    """Write an export; the folder is made if there is none.

    Returns:
        The counts of account.json.

    Raises:
        ValueError: The folder holds an export with decisions that the review has not.
    """
    with database.snapshot():  # the page may be written to at this moment
        _check_nothing_lost(database, folder)
        counts = write_export(folder, database.items(), database.decisions())
        write_json(folder / REVIEW, account(database))
    return counts


def _check_nothing_lost(database: Database, folder: Path) -> None:
    """Refuse to write over decisions of another review, such as of a database elsewhere."""
    if not (folder / DECISIONS).exists():
        return
    rows = database.rows("SELECT item, reviewer FROM decisions")
    known = {(row["item"], row["reviewer"]) for row in rows}
    decisions = read_export(folder).decisions
    lost = sum((each["item"], each["reviewer"]) not in known for each in decisions)
    if lost:
        raise ValueError(
            f"--export {folder}: {lost} decisions in it are not in {database.path}; name the "
            "review that they are in by --database FILE, or another folder"
        )


def settings_of(folder: Path) -> dict[str, float]:
    """Return the settings of the review that an export comes from; none if it says none."""
    path = folder / REVIEW
    return dict(read_json(path)["settings"]) if path.exists() else {}


def load(database: Database, folder: Path) -> tuple[Changes, int]:
    """Bring the items of a folder in, and its decisions if it is an export.

    Returns:
        What changed, and how many decisions are new.

    Raises:
        ValueError: A line of the folder is wrong, or decisions contradict those that are here.
    """
    content = read_export(folder)
    if not content.items:
        raise ValueError(f"{folder}: there is no item in it, so nothing to review")
    changes = database.load(content.items)
    has_decisions = (folder / DECISIONS).exists()
    return changes, database.insert(content.decisions) if has_decisions else 0
