"""The account of a curation: what was kept, what was dropped and why, and which lines are at fault.

Knows names and counts only: not how a record is read.
"""

import os
from collections import Counter, defaultdict

LISTED = 200  # problems shown; all are counted


class CurationReport:
    """Counts by kind. A drop is ordinary (a duplicate); a fault is the user's to mend and is listed with its line."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self.markers: Counter[str] = Counter()  # control-token markers taken out of texts
        self.problems: list[str] = []
        self.total = 0

    def drop(self, kind: str, reason: str) -> None:
        self.dropped[kind][reason] += 1

    def fault(self, kind: str, path: str, line: int, reason: str, detail: str = "") -> None:
        """`reason` is one of few (it is counted), `detail` is free (it is only shown)."""
        self.drop(kind, reason)
        self.total += 1
        if len(self.problems) < LISTED:
            place = f"{shown(path)}:{line}" if line else shown(path)  # line 0: the file as a whole
            quoted = " ".join(detail.encode("utf-8", "replace").decode().split())
            self.problems.append(f"{place}: {reason}" + (f" ({quoted})" if quoted else ""))

    def of(self, kind: str) -> dict:
        counts = {
            "files": self.files[kind],
            "kept": self.kept[kind],
            "dropped": dict(self.dropped[kind]),
        }
        return counts | {"markers_removed": self.markers[kind]}

    def summary(self) -> dict:
        return {"problems_total": self.total, "problems": self.problems}


def shown(path: str) -> str:
    """A path as text: file names are bytes and need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
