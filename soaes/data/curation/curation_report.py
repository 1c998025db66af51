"""The report of a curation: what was kept, what was dropped and why, and which lines are broken."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from typing import NotRequired, TypedDict

MAX_LISTED = 200  # problems that the report lists; all are counted


class KindCounts(TypedDict):
    """What became of one kind of data."""

    files: int  # files that were read
    kept: int  # records that were kept
    dropped: dict[str, int]  # reason -> records that were dropped
    repaired: dict[str, int]  # repair -> records that were read after it
    fields_not_read: dict[str, int]  # field -> kept or dropped records in which it holds something
    markers_removed: NotRequired[
        int
    ]  # control tokens; of documents, `clean` counts what it removes


# Control characters, ends of lines and paragraphs, and marks of direction.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class CurationReport:
    """Counts by kind: general, corpus, dialogue, qa, exam.

    A drop is ordinary (a duplicate). A problem is for the user to fix, and is listed with its line.
    """

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self.repaired: dict[str, Counter[str]] = defaultdict(Counter)
        self.markers: Counter[str] = Counter()
        self.unread: dict[str, Counter[str]] = defaultdict(Counter)
        self.num_contaminated = 0
        self.problems: list[str] = []
        self.num_problems = 0

    def drop(self, kind: str, reason: str) -> None:
        """Count a record that is left out."""
        self.dropped[kind][reason] += 1

    def contaminated(self, kind: str, held_out: str) -> None:
        """Count a record that is left out since it holds a question of `held_out`."""
        self.num_contaminated += 1
        self.drop(kind, f"holds a question of {held_out}")

    def problem(self, kind: str, path: str, line: int, reason: str, detail: str = "") -> None:
        """Count and list a record that cannot be used.

        Args:
            kind: general, corpus, dialogue, qa or exam.
            path: the file, relative to the user's folder.
            line: line of the record; 0 for the file as a whole.
            reason: one of few texts, which are counted.
            detail: free text, which is only shown.
        """
        self.drop(kind, reason)
        self.num_problems += 1
        if len(self.problems) >= MAX_LISTED:
            return
        place = f"{printable(path)}:{line}" if line else printable(path)
        entry = f"{place}: {reason}"
        one_line = " ".join(_encodable(detail).split())
        if one_line:
            entry += f" ({one_line})"
        self.problems.append(entry)

    def counts(self, kind: str) -> KindCounts:
        """Return what became of one kind of data."""
        fields: Counter[str] = Counter()
        for field, count in self.unread[kind].items():
            fields[_encodable(field)] += count
        counts: KindCounts = {
            "files": self.files[kind],
            "kept": self.kept[kind],
            "dropped": dict(self.dropped[kind]),
            "repaired": dict(self.repaired[kind]),
            "fields_not_read": dict(fields.most_common(MAX_LISTED)),
        }
        if kind in self.markers:
            counts["markers_removed"] = self.markers[kind]
        return counts


def _encodable(text: str) -> str:
    """Return a text with a mark for each half of a character, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(path: str) -> str:
    """Return a path as text of one line that reads in one direction.

    File names are bytes and need not be UTF-8. Each byte that is none, and each character that ends
    a line or turns it around, is written as its escape, so that two names stay two.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
