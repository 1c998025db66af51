"""A review as an export: soaes.data.annotation.item has the format; review.json stands beside it.

review.json holds how the review was done: its settings, the bound on what nobody read, agreement.
All of it follows from items, decisions and settings, so that an export that is imported and
exported again has the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soaes.data.annotation.item import DECISIONS, read_export, write_export
from soaes.pipeline.store import read_json, write_json
from soaes.review.account import account
from soaes.review.database import Changes, Database

REVIEW = "review.json"


def export(database: Database, folder: Path) -> dict[str, Any]:
    """Write an export; the folder is made if there is none.

    Returns:
        The counts of account.json.
    """
    counts = write_export(folder, database.items(), database.decisions())
    write_json(folder / REVIEW, account(database))
    return counts


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
