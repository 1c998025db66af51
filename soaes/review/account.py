"""How far a review has come, how long it will take, and how well its people agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from soaes.data.annotation.agreement import agreement
from soaes.review.database import Database, Lot
from soaes.review.plan import PARTS
from soaes.review.sampling import ALPHA, expected_reviews, rest_bound

LONGEST = 600  # seconds of one decision that count in a mean: longer ones are breaks
FEWEST = 3  # decisions before hours are estimated

PAIRS = """
SELECT kind, first.verdict AS a, other.verdict AS b, first.reviewer AS r, other.reviewer AS s
FROM decisions AS first
JOIN decisions AS other ON other.item = first.item AND other.second = 1
JOIN items ON id = first.item
WHERE present AND first.second = 0 AND first.verdict <> 'skip' AND other.verdict <> 'skip'
ORDER BY first.item, other.time, other.reviewer
"""


class Group(NamedTuple):
    """Items of one part, kind and task."""

    part: str
    kind: str
    task: str
    items: int
    decided: int  # items with a decision
    due: int  # items that are decided on when the review ends, as far as is known
    remaining: int  # decisions

    def as_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return self._asdict()


def groups(database: Database) -> list[Group]:
    """Return the groups of items in the order of review."""
    lots = database.lots()
    limit = database.settings.limit
    found = []
    for row in database.rows("SELECT * FROM counts"):
        part, items, decided = row["part"], row["items"], row["decided"]
        due, remaining = items, row["untouched"] + row["waiting"]
        if part == "train":
            lot = lots[row["task"]]
            due = expected_reviews(lot.size, lot.reviewed, lot.wrong, limit)
            copies = row["needed"] / items
            is_closed = lot.is_closed(limit)
            remaining = 0 if is_closed else round((due - decided) * copies) + row["waiting"]
        found.append(Group(part, row["kind"], row["task"], items, decided, due, remaining))
    return sorted(found, key=lambda group: (PARTS.index(group.part), group.kind, group.task))


def seconds_by_kind(database: Database) -> dict[tuple[str, str], float]:
    """Return the mean seconds of a decision by kind and task, and of all under ("", "")."""
    query = (
        "SELECT kind, task, count(*) AS n, sum(min(seconds, ?)) AS total "
        "FROM decisions JOIN items ON id = item GROUP BY kind, task"
    )
    rows = database.rows(query, (LONGEST,))
    count = sum(row["n"] for row in rows)
    if count < FEWEST:
        return {}
    means = {(row["kind"], row["task"]): row["total"] / row["n"] for row in rows}
    return {**means, ("", ""): sum(row["total"] for row in rows) / count}


def headline(database: Database, reviewer: str) -> dict[str, Any]:
    """Return what the page shows beside every item: how far, how long, and this person's day."""
    found = groups(database)
    means = seconds_by_kind(database)
    hours = None
    if means:
        seconds = [
            group.remaining * means.get((group.kind, group.task), means["", ""]) for group in found
        ]
        hours = sum(seconds) / 3600
    midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    query = "SELECT count(*) AS n, avg(min(seconds, ?)) AS mean FROM decisions WHERE reviewer = ? "
    since = midnight.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    (today,) = database.rows(query + "AND time >= ?", (LONGEST, reviewer, since))
    return {
        "decided": sum(group.decided for group in found),
        "due": sum(group.due for group in found),
        "remaining": sum(group.remaining for group in found),
        "hours": hours,
        "today": today["n"],
        "pace": today["mean"],
    }


def account(database: Database) -> dict[str, Any]:
    """Return what an export says of the review; it follows from items, decisions and settings."""
    limit = database.settings.limit
    lots = database.lots()
    return {
        "settings": {"twice": database.settings.twice, "limit": limit},
        "groups": [group.as_json() for group in groups(database)],
        "sampling": [_lot_json(name, lot, limit) for name, lot in sorted(lots.items())],
        "agreement": list(agreements(database)),
    }


def _lot_json(name: str, lot: Lot, limit: float) -> dict[str, Any]:
    return {
        "task": name,
        "items": lot.size,
        "reviewed": lot.reviewed,
        "wrong": lot.wrong,
        "unread": lot.size - lot.reviewed,
        "unread_wrong_at_most": round(rest_bound(lot.size, lot.reviewed, lot.wrong), 6),
        "confidence": 1 - ALPHA,
        "limit": limit,
        "accepted": lot.is_closed(limit),
    }


def agreements(database: Database) -> Iterator[dict[str, Any]]:
    """Yield the agreement of first and second decisions, by kind and by two people.

    People are named where a pair of them is meant; "" stands for all pairs of different people.
    """
    pairs: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for row in database.rows(PAIRS):
        first, second = row["r"], row["s"]
        verdicts = (row["a"], row["b"])
        if first > second:
            first, second, verdicts = second, first, (row["b"], row["a"])
        pairs[row["kind"], first, second].append(verdicts)
        if first != second:
            pairs[row["kind"], "", ""].append((row["a"], row["b"]))
    for (kind, first, second), verdicts_of_both in sorted(pairs.items()):
        measured = agreement(verdicts_of_both)
        numbers = {
            name: value if value is None else round(value, 6)
            for name, value in measured._asdict().items()
        }
        yield {"kind": kind, "first": first, "second": second, **numbers}


def people(database: Database) -> list[dict[str, Any]]:
    """Return how many decisions each person made, and the hours that they took."""
    query = (
        "SELECT name AS reviewer, count(item) AS decisions, "
        "coalesce(sum(seconds), 0) / 3600 AS hours FROM reviewers "
        "LEFT JOIN decisions ON reviewer = name GROUP BY name ORDER BY name"
    )
    return [dict(row) for row in database.rows(query)]


def verdict_counts(database: Database) -> list[dict[str, Any]]:
    """Return how often each verdict and each reason was given, by kind."""
    query = (
        "SELECT kind, verdict, CASE WHEN verdict = 'reject' THEN reason ELSE '' END AS reason, "
        "count(*) AS n FROM decisions JOIN items ON id = item WHERE present "
        "GROUP BY 1, 2, 3 ORDER BY kind, n DESC, verdict, reason"
    )
    return [dict(row) for row in database.rows(query)]
