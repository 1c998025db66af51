"""Pack token sequences into rows of fixed length. Knows lengths only: not text, not tensors, not epochs.

# D documents, P pieces of them. Lengths are small whole numbers, so pieces of one length are placed together and a million take seconds."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Packing(NamedTuple):
    """Which tokens lie where, and what became of every document that did not fit."""

    pieces_P4: np.ndarray  # row, document, start, stop (tokens [start, stop) of the document): row by row, in a row from the left
    rows: int
    split: int  # documents cut into several pieces
    dropped: list[int]  # documents left out, because they are longer than a row


def best_fit(lengths: list[int], capacity: int, overflow: str = "error", names: list[str] | None = None) -> Packing:
    """Best-fit decreasing: each piece, the longest first, goes to the fullest row that still holds it.

    lengths: tokens of each document. overflow: `split` cuts a longer document into full pieces and a rest, `drop` leaves it
    out, `error` raises ValueError. A document without tokens takes no room and is not placed."""
    if overflow not in ("split", "drop", "error"):
        raise ValueError(f"overflow={overflow}: a document longer than a row is either split, drop or error")
    lengths_D = np.array(lengths, np.int64)
    longer = np.flatnonzero(lengths_D > capacity).tolist()
    if longer and overflow == "error":
        first = longer[0]
        name = names[first] if names else f"document {first}"
        raise ValueError(f"{name} has {lengths[first]:,} tokens, a row holds {capacity:,}; set packing.overflow=split or drop, or a larger context")
    dropped = longer if overflow == "drop" else []
    lengths_D[dropped] = 0
    pieces_P4 = _fill(_cut(lengths_D, capacity), capacity)
    return Packing(pieces_P4, int(pieces_P4[:, 0].max(initial=-1)) + 1, len(longer) - len(dropped), dropped)


def _cut(lengths_D: np.ndarray, capacity: int) -> np.ndarray:
    """[P, 3]: document, start, stop of every piece, none longer than a row."""
    cuts_D = -(-lengths_D // capacity)
    document_P = np.repeat(np.arange(len(lengths_D)), cuts_D)
    first_D = np.cumsum(cuts_D) - cuts_D
    start_P = capacity * (np.arange(len(document_P)) - first_D[document_P])
    return np.column_stack([document_P, start_P, np.minimum(start_P + capacity, lengths_D[document_P])])


def _fill(pieces_P3: np.ndarray, capacity: int) -> np.ndarray:
    """[P, 4]: each piece behind its row. The longest is placed first, of equals the earliest; in a row they lie as they were placed."""
    length_P = pieces_P3[:, 2] - pieces_P3[:, 1]
    lengths, counts = np.unique(length_P, return_counts=True)
    row_P = np.array(_place(zip(lengths[::-1].tolist(), counts[::-1].tolist()), capacity), np.int64)
    placed_P4 = np.column_stack([row_P, pieces_P3[np.argsort(-length_P, kind="stable")]])
    return placed_P4[np.argsort(row_P, kind="stable")]


def _place(lengths: Iterable[tuple[int, int]], capacity: int) -> list[int]:
    """The row of each piece. lengths: (length, how many pieces have it), the longest first.

    The fullest row that holds a piece stays the fullest for the next of this length, until it holds no more: so a row takes all that it can
    at once, and every row with the same room takes alike. Three pieces of 3, rows 4 and 5 with room for 7: rows 4, 4, 5, rooms 1 and 4."""
    placed: list[int] = []
    opened = _Opened(capacity)
    for length, left in lengths:
        while left:
            rows, room = opened.take(length, left)
            each = room // length
            placed += [row for row in rows for _ in range(each)][:left]
            over = each * len(rows) - left  # so many fewer pieces for the last row
            if over > 0:
                opened.put([rows.pop()], room - (each - over) * length)
            opened.put(rows, room - each * length)
            left = max(0, -over)
    return placed


class _Opened:
    """Rows by the room that they have left, so that the fullest that fits is found by one look at the rooms in use."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self.by_room: dict[int, list[int]] = defaultdict(list)  # room left -> rows with it, the earliest first
        self.rooms: list[int] = []  # in use, ascending: at most `capacity` of them

    def put(self, rows: list[int], room: int) -> None:
        if not rows or not room:
            return
        if not self.by_room[room]:
            insort(self.rooms, room)
        self.by_room[room] += rows

    def take(self, length: int, pieces: int) -> tuple[list[int], int]:
        """(rows, their room): the fullest that hold a piece of `length`, and no more of them than `pieces` of it need."""
        at = bisect_left(self.rooms, length)
        new = at == len(self.rooms)
        room = self.capacity if new else self.rooms[at]
        wanted = -(-pieces // (room // length))
        if new:
            self.count += wanted
            return list(range(self.count - wanted, self.count)), room
        rows = self.by_room[room][:wanted]
        del self.by_room[room][:wanted]
        if not self.by_room[room]:
            del self.rooms[at]
        return rows, room
