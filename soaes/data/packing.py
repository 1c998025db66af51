"""Pack token sequences into rows of fixed length. Knows lengths only: not text, not tensors, not epochs.

# D documents, P pieces of them. Lengths are small whole numbers, so pieces of one length are placed together and a million take seconds."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


class Packing(NamedTuple):
    """Which tokens lie where, and what became of every document that did not fit."""

    pieces_P4: np.ndarray  # row, document, start, stop (tokens [start, stop) of the document): row by row, in a row from the left
    rows: int
    split: int  # documents cut into several pieces
    dropped: list[int]  # documents left out, because they are longer than a row


def best_fit(
    lengths: list[int], capacity: int, overflow: str = "error", names: list[str] | None = None
) -> Packing:
    """Best-fit decreasing: each piece, the longest first, goes to the fullest row that still holds it.

    lengths: tokens of each document. overflow: `split` cuts a longer document into full pieces and a rest, `drop` leaves it
    out, `error` raises ValueError. A document without tokens takes no room and is not placed."""
    return _packed(lengths, capacity, overflow, names, _best_fit)


def sum_of_squares(
    lengths: list[int], capacity: int, overflow: str = "error", names: list[str] | None = None
) -> Packing:
    """The sum-of-squares rule (Csirik et al., J. ACM 53, 2006) in a fixed random order; parameters as of `best_fit`.

    For documents of much the same length, of which the longest first leave the same gap in every row: 99.8 % full where best-fit decreasing
    has 95.6 (stage 2 at scale=tiny). It looks at every room for every piece, 10 microseconds at rows of 256, and so suits small corpora."""
    return _packed(lengths, capacity, overflow, names, _sum_of_squares)


def _packed(
    lengths: list[int],
    capacity: int,
    overflow: str,
    names: list[str] | None,
    place: Callable[[np.ndarray, int], np.ndarray],
) -> Packing:
    if overflow not in ("split", "drop", "error"):
        raise ValueError(
            f"overflow={overflow}: a document longer than a row is either split, drop or error"
        )
    lengths_D = np.array(lengths, np.int64)
    longer = np.flatnonzero(lengths_D > capacity).tolist()
    if longer and overflow == "error":
        first = longer[0]
        name = names[first] if names else f"document {first}"
        raise ValueError(
            f"{name} has {lengths[first]:,} tokens, a row holds {capacity:,}; set packing.overflow=split or drop, or a larger context"
        )
    dropped = longer if overflow == "drop" else []
    lengths_D[dropped] = 0
    pieces_P3 = _cut(lengths_D, capacity)
    length_P = pieces_P3[:, 2] - pieces_P3[:, 1]
    row_P = place(length_P, capacity)
    order_P = np.lexsort(
        [-length_P, row_P]
    )  # in a row the longest lies first, of equals the earliest
    pieces_P4 = np.column_stack([row_P, pieces_P3])[order_P]
    return Packing(
        pieces_P4, int(pieces_P4[:, 0].max(initial=-1)) + 1, len(longer) - len(dropped), dropped
    )


def _cut(lengths_D: np.ndarray, capacity: int) -> np.ndarray:
    """[P, 3]: document, start, stop of every piece, none longer than a row."""
    cuts_D = -(-lengths_D // capacity)
    document_P = np.repeat(np.arange(len(lengths_D)), cuts_D)
    first_D = np.cumsum(cuts_D) - cuts_D
    start_P = capacity * (np.arange(len(document_P)) - first_D[document_P])
    return np.column_stack(
        [document_P, start_P, np.minimum(start_P + capacity, lengths_D[document_P])]
    )


def _best_fit(length_P: np.ndarray, capacity: int) -> np.ndarray:
    """[P]: the row of each piece. The longest is placed first, of equals the earliest."""
    lengths, counts = np.unique(length_P, return_counts=True)
    row_P = np.empty(len(length_P), np.int64)
    row_P[np.argsort(-length_P, kind="stable")] = _place(
        zip(lengths[::-1].tolist(), counts[::-1].tolist()), capacity
    )
    return row_P


def _sum_of_squares(length_P: np.ndarray, capacity: int) -> np.ndarray:
    """[P]: the row of each piece. It goes where the squares of the numbers of rows with each room then have the least sum: no gap becomes common.

    The rows that are not full in the end are few; best-fit decreasing places their pieces anew."""
    row_P = np.empty(len(length_P), np.int64)
    with_room = np.zeros(
        capacity + 1, np.int64
    )  # rows that are begun and not full, by the room that they have left
    rows_with: list[list[int]] = [[] for _ in range(capacity + 1)]
    begun = 0
    for piece in np.random.default_rng(0).permutation(len(length_P)).tolist():
        room = _least_squares(with_room, int(length_P[piece]))
        if room < capacity:
            row = rows_with[room].pop()
            with_room[room] -= 1
        else:
            row, begun = begun, begun + 1
        row_P[piece] = row
        left = room - int(length_P[piece])
        if left:
            rows_with[left].append(row)
            with_room[left] += 1
    open_R = np.isin(np.arange(begun), [row for rows in rows_with for row in rows])
    again_P = open_R[row_P]
    row_P = (np.cumsum(~open_R) - 1)[row_P]
    row_P[again_P] = (~open_R).sum() + _best_fit(length_P[again_P], capacity)
    return row_P


def _least_squares(with_room: np.ndarray, length: int) -> int:
    """The room, of those of at least `length`, whose use lets the sum of squares grow least; the whole capacity is a new row."""
    capacity = len(with_room) - 1
    growth = (
        2 * with_room[: capacity + 1 - length] - 2 * with_room[length:] + 2
    )  # of moving one row from room r to r - length
    growth[0] = 1 - 2 * with_room[length]  # a full row is counted no more
    growth[-1] = (
        2 * with_room[capacity - length] + 1 if length < capacity else 0
    )  # a new row was not counted before
    missing = with_room[length:] == 0
    missing[-1] = False
    growth[missing] = np.iinfo(np.int64).max
    return length + int(growth.argmin())


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
        self.by_room: dict[int, list[int]] = defaultdict(
            list
        )  # room left -> rows with it, the earliest first
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
