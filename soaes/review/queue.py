"""The list of items as one person may see it: what is open, and what they themselves decided."""

from __future__ import annotations

import json
from typing import Any

from soaes.review.database import Database

PAGE = 50  # items listed at once
SHOWS = ("all", "mine", "open", "decided")

LISTED = """
SELECT items.id, place, part, kind, task, given, wrong, needed, documents.content AS document,
  items.content, mine.verdict, mine.again
FROM items
JOIN item_documents ON item_documents.item = items.id AND field = 'document'
JOIN documents ON number = item_documents.document
LEFT JOIN decisions AS mine ON mine.item = items.id AND mine.reviewer = :reviewer
WHERE present AND {condition} AND {words} ORDER BY place, mine.again LIMIT :limit OFFSET :start
"""
COUNTED = """
SELECT count(*) AS n FROM items
LEFT JOIN decisions AS mine ON mine.item = items.id AND mine.reviewer = :reviewer
WHERE present AND {condition} AND {words}
"""

CONDITIONS = {
    "all": "true",
    "mine": "mine.verdict IS NOT NULL",
    "open": "given < needed",
    "decided": "given >= needed",
}
HAS_WORDS = (
    "(json_extract(items.content, '$.question') LIKE :words ESCAPE '\\' "
    "OR json_extract(items.content, '$.answer') LIKE :words ESCAPE '\\')"
)
LONGEST_WORDS = 1000  # characters that are searched for
TITLE = 80  # characters of a question or title that stand for the item


def latest(database: Database, reviewer: str) -> list[dict[str, Any]]:
    """Return the items that a person decided on last, oldest first."""
    query = "SELECT item, again FROM decisions WHERE reviewer = ? ORDER BY time DESC, item LIMIT ?"
    rows = database.rows(query, (reviewer, PAGE))
    return [{"item": row["item"], "again": bool(row["again"])} for row in reversed(rows)]


Answer = dict[str, Any]


def listed(database: Database, reviewer: str, show: str, words: str, start: int) -> Answer:
    """Return a part of the list.

    Args:
        database: The review.
        reviewer: Whose decisions are shown; others' never are.
        show: One of SHOWS; any other counts as "all".
        words: Text that the question or the answer must hold.
        start: How many items to leave out at the beginning.
    """
    condition = CONDITIONS.get(show, CONDITIONS["all"])
    escaped = words[:LONGEST_WORDS].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    has_words = HAS_WORDS if words else "true"
    values = {
        "reviewer": reviewer,
        "words": f"%{escaped}%",
        "limit": PAGE,
        "start": start,
    }
    parts = {"condition": condition, "words": has_words}
    rows = database.rows(LISTED.format(**parts), values)
    (counted,) = database.rows(COUNTED.format(**parts), values)
    return {
        "items": [_entry(row) for row in rows],
        "total": counted["n"],
        "start": start,
        "page": PAGE,
    }


def _entry(row: Any) -> dict[str, Any]:
    content, document = json.loads(row["content"]), json.loads(row["document"])
    shown, about = content["question"], document["title"]
    if not shown:
        shown, about = document["title"] or document["text"], document["source"]
    if row["kind"] == "relevance" and not row["verdict"]:
        # the passage alone: whoever judges it has not seen what it is from
        shown, about = document["text"][slice(*content["span"] or [None])], ""
    is_open = row["given"] < row["needed"]
    return {
        "id": row["id"],
        "again": bool(row["again"]),
        "place": row["place"] + 1,
        "part": row["part"],
        "kind": row["kind"],
        "task": row["task"],
        "question": shown[:TITLE],
        "about": about,
        "open": is_open,
        "verdict": row["verdict"],
    }
