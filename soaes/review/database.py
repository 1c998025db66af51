"""Items, decisions and leases in one SQLite file.

People's decisions are the user's data: the file lies outside the store, and a decision is on the
disk before it is acknowledged (write-ahead log, flushed at every commit). Writers take the lock
when they begin (BEGIN IMMEDIATE) and compare versions, so that of two tabs that decide on one item
the second is told. A decision has a key that its page chose: sent again after an answer that was
lost, it is acknowledged and not made twice.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from soaes.data.annotation.item import Decision, ReviewDocument, ReviewItem, check_decision
from soaes.review.plan import ReviewSettings, plan
from soaes.review.sampling import rest_bound

FORMAT = 1  # of the tables below
PATIENCE = 10.0  # seconds for which a writer waits for another one
MAX_SECONDS = 3600.0  # that one decision may count

TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE reviewers (name TEXT PRIMARY KEY) STRICT;
CREATE TABLE sessions (digest TEXT PRIMARY KEY, reviewer TEXT NOT NULL) STRICT;
CREATE TABLE documents (
  number INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL, content TEXT NOT NULL
) STRICT;
CREATE TABLE items (
  id TEXT PRIMARY KEY,
  place INTEGER NOT NULL,            -- in the order of review
  part TEXT NOT NULL,
  lot TEXT NOT NULL,
  needed INTEGER NOT NULL,           -- decisions
  given INTEGER NOT NULL DEFAULT 0,  -- decisions, skips left out
  wrong INTEGER NOT NULL DEFAULT 0,  -- rejected, edited, or skipped by all
  present INTEGER NOT NULL,          -- in DATA as it is now
  kind TEXT NOT NULL,
  task TEXT NOT NULL,
  content TEXT NOT NULL              -- without its documents
) STRICT;
CREATE TABLE item_documents (
  item TEXT NOT NULL, field TEXT NOT NULL, document INTEGER NOT NULL, PRIMARY KEY (item, field)
) STRICT, WITHOUT ROWID;
CREATE INDEX items_by_place ON items (place);
CREATE INDEX open_items ON items (place) WHERE present AND given < needed;
CREATE TABLE counts (                -- of the items of DATA; see COUNTS
  part TEXT NOT NULL, kind TEXT NOT NULL, task TEXT NOT NULL, items INTEGER NOT NULL,
  needed INTEGER NOT NULL, decided INTEGER NOT NULL, wrong INTEGER NOT NULL,
  untouched INTEGER NOT NULL, waiting INTEGER NOT NULL, PRIMARY KEY (part, kind, task)
) STRICT, WITHOUT ROWID;
CREATE TABLE decisions (
  item TEXT NOT NULL,
  reviewer TEXT NOT NULL,
  again INTEGER NOT NULL,            -- this person's second decision on the item
  second INTEGER NOT NULL,           -- not the first decision on the item
  version INTEGER NOT NULL,          -- how often it was changed, from 1
  key TEXT NOT NULL,                 -- chosen by the page
  verdict TEXT NOT NULL,
  reason TEXT NOT NULL,
  question TEXT NOT NULL,
  answer TEXT NOT NULL,
  seconds REAL NOT NULL,
  time TEXT NOT NULL,
  PRIMARY KEY (item, reviewer, again)
) STRICT, WITHOUT ROWID;
CREATE INDEX decisions_by_reviewer ON decisions (reviewer, time);
CREATE TABLE leases (
  reviewer TEXT PRIMARY KEY, item TEXT NOT NULL, again INTEGER NOT NULL, expires REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_item ON leases (item);
"""

# The next item of a person: not decided by them, and wanted by nobody else's lease. `again` asks
# for the items that this person alone has decided, for a second time.
NEXT = """
SELECT id FROM items
WHERE present AND given < needed AND lot NOT IN (SELECT value FROM json_each(:closed))
AND (SELECT count(*) FROM decisions WHERE item = id AND reviewer = :reviewer) = :again
AND (NOT :again OR given = 1)
AND given + (
  SELECT count(*) FROM leases
  WHERE leases.item = id AND leases.reviewer <> :reviewer AND expires > :now
) < needed
ORDER BY place LIMIT 1
"""

# what an item's decisions say of it; a skip says nothing, unless all skipped
JUDGE = """
UPDATE items SET
  given = (SELECT count(*) FROM decisions WHERE item = id AND verdict <> 'skip'),
  wrong = (
    SELECT count(*) > 0 AND (max(verdict IN ('edit', 'reject')) OR min(verdict = 'skip'))
    FROM decisions WHERE item = id
  )
WHERE id = ?
"""

# a name of an earlier start that nobody used
FORGET = """
DELETE FROM reviewers
WHERE name NOT IN (SELECT reviewer FROM sessions)
AND name NOT IN (SELECT reviewer FROM decisions)
"""


Values = Mapping[str, Any] | tuple[Any, ...]


# What an item adds to the counts of its group. They are kept, since a page asks for them with every
# decision: items decided on, wrong ones, decisions due on items without any, and on the others.
COUNTS = {
    "decided": "given > 0 OR wrong",
    "wrong": "wrong",
    "untouched": "CASE WHEN given = 0 AND NOT wrong THEN needed ELSE 0 END",
    "waiting": "CASE WHEN given > 0 THEN max(needed - given, 0) ELSE 0 END",
}


class Lot(NamedTuple):
    """Training questions of one task."""

    size: int
    reviewed: int
    wrong: int

    def is_closed(self, limit: float) -> bool:
        """Return whether few enough of the rest can be wrong."""
        return rest_bound(self.size, self.reviewed, self.wrong) <= limit


class Assignment(NamedTuple):
    """An item for one person, with the decision that they made on it."""

    item: ReviewItem
    again: bool
    version: int  # of the decision; 0 where there is none
    decision: Decision | None


@dataclass(frozen=True)
class NewDecision:
    """What a page sends; checked by `Database.decide`."""

    item: str
    again: bool
    version: int  # that the page showed; 0 where it showed none
    key: str
    verdict: str
    reason: str
    question: str
    answer: str
    seconds: float


class ChangedElsewhereError(Exception):
    """The decision was changed, in another tab, after the page was shown."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__("the decision was changed in another tab")
        self.assignment = assignment


class Changes(NamedTuple):
    """What a new reading of DATA changed."""

    items: int
    new: int
    missing: int  # no longer in DATA: given to nobody, decisions kept


class Database:
    """A review, open; safe in several threads and beside other processes."""

    def __init__(self, path: Path) -> None:
        """Open a review, or start one.

        Args:
            path: The file; its folder must exist.

        Raises:
            ValueError: The file is no review, or of another version of this program.
        """
        self.path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._create()
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path}: no review can be read here ({error}); name another file by --database"
            ) from None
        self.settings = ReviewSettings(**(self.get("settings") or {}))

    def _create(self) -> None:
        with self._write() as cursor:
            (version,) = cursor.execute("PRAGMA user_version").fetchone()
            (tables,) = cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not version and not tables:
                for statement in TABLES.split(";\n"):
                    cursor.execute(statement)
                cursor.execute(f"PRAGMA user_version = {FORMAT}")
            elif version != FORMAT:
                raise sqlite3.DatabaseError(f"format {version}, this program reads {FORMAT}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _write(self, durable: bool = True) -> Iterator[sqlite3.Cursor]:
        """Run a transaction that holds the lock of the file from its beginning.

        Args:
            durable: Whether it is on the disk at its end; a lease that a power cut takes is none.
        """
        with self._lock:
            cursor = self._connection.cursor()
            cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    cursor.execute("ROLLBACK")
                raise

    def rows(self, query: str, values: Values = ()) -> list[Any]:
        """Return the rows of a query that changes nothing."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads within see one state of the file, for one thread that writes nothing."""
        self.rows("BEGIN")
        try:
            yield
        finally:
            self.rows("COMMIT")

    # ---------------------------------------------------------------- settings, people

    def get(self, name: str) -> Any:
        """Return a value that `put` kept; None if there is none."""
        rows = self.rows("SELECT value FROM settings WHERE name = ?", (name,))
        return json.loads(rows[0]["value"]) if rows else None

    def put(self, name: str, value: Any) -> None:
        """Keep a value."""
        with self._write() as cursor:
            statement = "INSERT OR REPLACE INTO settings VALUES (?, ?)"
            cursor.execute(statement, (name, json.dumps(value, ensure_ascii=False)))

    def use(self, settings: ReviewSettings) -> None:
        """Set how items are reviewed; `load` then plans by it."""
        self.put("settings", asdict(settings))
        self.settings = settings

    def register(self, reviewers: Iterable[str]) -> None:
        """Add people who review; a name that opened no page, such as a mistyped one, is dropped."""
        with self._write() as cursor:
            cursor.execute(FORGET)
            statement = "INSERT OR IGNORE INTO reviewers VALUES (?)"
            cursor.executemany(statement, [(name,) for name in reviewers])

    def reviewers(self) -> list[str]:
        """Return the people who review."""
        return [row["name"] for row in self.rows("SELECT name FROM reviewers ORDER BY name")]

    def add_session(self, secret: str, reviewer: str) -> None:
        """Remember a browser; the file keeps a digest of its secret."""
        with self._write() as cursor:
            statement = "INSERT INTO sessions VALUES (?, ?)"
            cursor.execute(statement, (_digest(secret), reviewer))

    def session(self, secret: str) -> str | None:
        """Return the person whose browser has a secret; None if there is none."""
        query = "SELECT reviewer FROM sessions WHERE digest = ?"
        rows = self.rows(query, (_digest(secret),))
        return rows[0]["reviewer"] if rows else None

    # ---------------------------------------------------------------- items

    def load(self, items: list[ReviewItem]) -> Changes:
        """Bring the items of DATA in, in the order of their review."""
        places = plan(items, self.settings)
        with self._write() as cursor:
            known = {row["id"] for row in cursor.execute("SELECT id FROM items")}
            present = {place.item["id"] for place in places}
            cursor.execute("UPDATE items SET present = 0")
            documents = _Documents(cursor)
            for number, place in enumerate(places):
                item = place.item
                values = (number, place.part, place.lot, place.needed)
                if item["id"] in known:
                    statement = (
                        "UPDATE items SET present = 1, place = ?, part = ?, lot = ?, needed = ?, "
                        "content = ? WHERE id = ?"
                    )
                    cursor.execute(statement, (*values, _content(item), item["id"]))
                else:
                    statement = (
                        "INSERT INTO items (place, part, lot, needed, content, id, present, kind, "
                        "task) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)"
                    )
                    task = place.lot or item["task"]
                    content = (_content(item), item["id"], item["kind"], task)
                    cursor.execute(statement, (*values, *content))
                documents.keep(item)
            _recount(cursor)
        return Changes(len(places), len(present - known), len(known - present))

    def item(self, identifier: str) -> ReviewItem | None:
        """Return an item; None if there is none of this id."""
        rows = self.rows("SELECT content FROM items WHERE id = ?", (identifier,))
        if not rows:
            return None
        query = (
            "SELECT field, documents.content FROM item_documents "
            "JOIN documents ON number = document WHERE item = ?"
        )
        found = self.rows(query, (identifier,))
        documents = {row["field"]: json.loads(row["content"]) for row in found}
        return cast(ReviewItem, {**json.loads(rows[0]["content"]), **documents})

    def items(self) -> Iterator[ReviewItem]:
        """Yield the items of DATA as it is now."""
        for row in self.rows("SELECT id FROM items WHERE present ORDER BY id"):
            item = self.item(row["id"])
            assert item is not None
            yield item

    def lots(self) -> dict[str, Lot]:
        """Return the lots by task."""
        rows = self.rows("SELECT task, items, decided, wrong FROM counts WHERE part = 'train'")
        return {row["task"]: Lot(row["items"], row["decided"], row["wrong"]) for row in rows}

    def closed_lots(self) -> list[str]:
        """Return the lots of which no more needs to be read."""
        limit = self.settings.limit
        return [name for name, lot in self.lots().items() if lot.is_closed(limit)]

    # ---------------------------------------------------------------- work

    def next(self, reviewer: str) -> Assignment | None:
        """Return what a person decides on next, and lease it to them.

        The item that they have already comes again, so that a page may be loaded anew. Whoever
        reviews alone gets the items that are decided on twice a second time at the end.

        Returns:
            None where nothing is left for this person.
        """
        closed = json.dumps(self.closed_lots())
        is_alone = len(self.reviewers()) < 2
        now = time.time()
        with self._write(durable=False) as cursor:
            query = (
                "SELECT item, again FROM leases JOIN items ON id = item "
                "WHERE reviewer = ? AND expires > ? AND present"
            )
            lease = cursor.execute(query, (reviewer, now)).fetchone()
            found = tuple(lease) if lease else None
            for again in (0, 1) if is_alone else (0,):
                if found is None:
                    values = {"reviewer": reviewer, "closed": closed, "again": again, "now": now}
                    row = cursor.execute(NEXT, values).fetchone()
                    found = (row["id"], again) if row else None
            if found is None:
                return None
            identifier, again = found
            expires = now + 60 * self.settings.lease
            statement = "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)"
            cursor.execute(statement, (reviewer, identifier, again, expires))
        return self.assignment(identifier, reviewer, bool(again))

    def renew(self, reviewer: str, identifier: str) -> bool:
        """Keep an item for the person who has it on the screen; False where they lost it."""
        now = time.time()
        with self._write(durable=False) as cursor:
            statement = (
                "UPDATE leases SET expires = ? WHERE reviewer = ? AND item = ? AND expires > ?"
            )
            values = (now + 60 * self.settings.lease, reviewer, identifier, now)
            return cursor.execute(statement, values).rowcount > 0

    def assignment(self, identifier: str, reviewer: str, again: bool) -> Assignment | None:
        """Return an item with a person's decision on it; None if there is no such item."""
        item = self.item(identifier)
        if item is None:
            return None
        query = "SELECT * FROM decisions WHERE item = ? AND reviewer = ? AND again = ?"
        rows = self.rows(query, (identifier, reviewer, again))
        if not rows:
            return Assignment(item, again, 0, None)
        return Assignment(item, again, rows[0]["version"], _decision(rows[0]))

    def decide(self, reviewer: str, new: NewDecision) -> int:
        """Write one decision; when this returns, it is on the disk.

        Returns:
            Its version.

        Raises:
            ValueError: There is no such item, or it has no such verdict.
            ChangedElsewhereError: The decision has another version than the page showed.
        """
        before = self.assignment(new.item, reviewer, new.again)
        if before is None:
            raise ValueError(f"item={new.item}: this review has no such item")
        item = before.item
        seconds = round(min(max(new.seconds, 0.0), MAX_SECONDS), 1)
        edited = new.verdict == "edit"
        decision: Decision = {
            "item": new.item,
            "reviewer": reviewer,
            "verdict": cast(Any, new.verdict),
            "reason": new.reason.strip(),
            "question": new.question if edited else item["question"],
            "answer": new.answer if edited else item["answer"],
            "seconds": seconds,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "second": False,
        }
        _check(decision, item)
        if not new.key:
            raise ValueError("key is empty: it is what tells a decision that is sent again")
        with self._write() as cursor:
            name = (new.item, reviewer, new.again)
            query = (
                "SELECT version, key, second, verdict FROM decisions "
                "WHERE item = ? AND reviewer = ? AND again = ?"
            )
            row = cursor.execute(query, name).fetchone()
            if row and row["key"] == new.key:
                return int(row["version"])
            version = row["version"] if row else 0
            if version == new.version:
                is_known = row and row["verdict"] != "skip"
                decision["second"] = bool(row["second"]) if is_known else _is_second(cursor, *name)
                _insert(cursor, decision, new.again, version + 1, new.key)
                statement = "DELETE FROM leases WHERE reviewer = ? AND item = ?"
                cursor.execute(statement, (reviewer, new.item))
        if version != new.version:
            current = self.assignment(*name)
            assert current is not None
            raise ChangedElsewhereError(current)
        return version + 1

    # ---------------------------------------------------------------- decisions

    def decisions(self) -> list[Decision]:
        """Return the decisions on items of DATA as it is now."""
        query = (
            "SELECT decisions.* FROM decisions JOIN items ON id = item WHERE present "
            "ORDER BY item, second, time, reviewer"
        )
        return [_decision(row) for row in self.rows(query)]

    def num_left_out(self) -> int:
        """Return how many decisions are about items that are no longer in DATA."""
        query = "SELECT count(*) AS n FROM decisions JOIN items ON id = item WHERE NOT present"
        return int(self.rows(query)[0]["n"])

    def insert(self, decisions: Iterable[Decision]) -> int:
        """Bring decisions of an export in; those that are here already are left as they are.

        Returns:
            How many are new.

        Raises:
            ValueError: A person's decision here differs from theirs in the export.
        """
        ordered = sorted(decisions, key=lambda each: (each["item"], each["second"]))
        num_new = 0
        with self._write() as cursor:
            seen: set[tuple[str, str]] = set()
            for decision in ordered:
                person = (decision["item"], decision["reviewer"])
                again = person in seen
                seen.add(person)
                query = "SELECT * FROM decisions WHERE item = ? AND reviewer = ? AND again = ?"
                row = cursor.execute(query, (*person, again)).fetchone()
                if row is None:
                    _insert(cursor, decision, again, 1, "")
                    num_new += 1
                elif _decision(row) != decision:
                    raise ValueError(
                        f"{person[1]} decided on {person[0]} here and in the export, differently; "
                        "name another file by --database"
                    )
        return num_new


class _Documents:
    """Keeps each document once, however many items are about it."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.cursor = cursor
        query = "SELECT digest, number FROM documents"
        self.numbers = {row["digest"]: row["number"] for row in cursor.execute(query)}

    def keep(self, item: ReviewItem) -> None:
        """Keep the documents of an item."""
        statement = "INSERT OR REPLACE INTO item_documents VALUES (?, ?, ?)"
        for field in ("document", "other"):
            document = cast(ReviewDocument | None, item.get(field))
            if document is not None:
                self.cursor.execute(statement, (item["id"], field, self._number(document)))

    def _number(self, document: ReviewDocument) -> int:
        text = json.dumps(document, ensure_ascii=False)
        digest = _digest(text)
        if digest not in self.numbers:
            statement = "INSERT INTO documents (digest, content) VALUES (?, ?)"
            self.cursor.execute(statement, (digest, text))
            self.numbers[digest] = cast(int, self.cursor.lastrowid)
        return self.numbers[digest]


def _content(item: ReviewItem) -> str:
    """Return an item without its documents as JSON."""
    fields = {key: value for key, value in item.items() if key not in ("document", "other")}
    return json.dumps(fields, ensure_ascii=False)


def _check(decision: Decision, item: ReviewItem) -> None:
    """Check a decision before it is written; see soaes.data.annotation.item.check_decision."""
    check_decision(decision, item["kind"], "the page's decision")
    unchanged = (item["question"], item["answer"]) == (decision["question"], decision["answer"])
    if decision["verdict"] == "edit" and unchanged:
        raise ValueError("verdict=edit: question and answer are as they were; accept the item")
    if decision["verdict"] == "edit" and not decision["answer"].strip():
        raise ValueError("verdict=edit: the answer is empty; reject the item")
    if decision["verdict"] == "edit" and not decision["question"].strip():
        raise ValueError("verdict=edit: the question is empty; reject the item")
    if decision["verdict"] == "reject" and not decision["reason"]:
        raise ValueError("verdict=reject: a rejection has a reason")


def _is_second(cursor: sqlite3.Cursor, identifier: str, reviewer: str, again: bool) -> bool:
    """Return whether an item was decided on before, skips left out."""
    query = "SELECT count(*) FROM decisions WHERE item = ? AND verdict <> 'skip' AND reviewer <> ?"
    (count,) = cursor.execute(query, (identifier, reviewer)).fetchone()
    return again or bool(count)


def _insert(
    cursor: sqlite3.Cursor, decision: Decision, again: bool, version: int, key: str
) -> None:
    """Write a decision, and what it says of its item."""
    values = {**decision, "again": again, "version": version, "key": key}
    names = list(values)
    places = ", ".join(f":{name}" for name in names)
    statement = f"INSERT OR REPLACE INTO decisions ({', '.join(names)}) VALUES ({places})"
    cursor.execute(statement, values)
    sums = ", ".join(f"({term}) AS {name}" for name, term in COUNTS.items())
    query = f"SELECT part, kind, task, present, {sums} FROM items WHERE id = ?"
    before = cursor.execute(query, (decision["item"],)).fetchone()
    cursor.execute(JUDGE, (decision["item"],))
    after = cursor.execute(query, (decision["item"],)).fetchone()
    if after["present"]:
        changes = [after[name] - before[name] for name in COUNTS]
        added = ", ".join(f"{name} = {name} + ?" for name in COUNTS)
        statement = f"UPDATE counts SET {added} WHERE part = ? AND kind = ? AND task = ?"
        cursor.execute(statement, (*changes, after["part"], after["kind"], after["task"]))


def _recount(cursor: sqlite3.Cursor) -> None:
    """Count all items anew."""
    sums = ", ".join(f"sum({term})" for term in COUNTS.values())
    cursor.execute("DELETE FROM counts")
    cursor.execute(
        "INSERT INTO counts (part, kind, task, items, needed, "
        f"{', '.join(COUNTS)}) SELECT part, kind, task, count(*), sum(needed), {sums} "
        "FROM items WHERE present GROUP BY part, kind, task"
    )


def _decision(row: sqlite3.Row) -> Decision:
    values = {name: row[name] for name in Decision.__annotations__}
    return cast(Decision, {**values, "second": bool(row["second"])})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
