"""Pack token sequences into rows of fixed length. Knows lengths only: not text, not tensors, not epochs."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import NamedTuple


class Piece(NamedTuple):
    """Tokens [start, stop) of document `document`."""

    document: int
    start: int
    stop: int


class Packing(NamedTuple):
    """Rows of pieces, and what became of every document that did not fit."""

    rows: list[list[Piece]]
    split: int  # documents cut into several pieces
    dropped: list[int]  # documents left out, because they are longer than a row


def best_fit(lengths: list[int], capacity: int, overflow: str = "error", names: list[str] | None = None) -> Packing:
    """Best-fit decreasing: each piece, the longest first, goes to the fullest row that still holds it.

    lengths: tokens of each document. overflow: `split` cuts a longer document into full pieces and a rest, `drop` leaves it
    out, `error` raises ValueError. A document without tokens takes no room and is not placed."""
    if overflow not in ("split", "drop", "error"):
        raise ValueError(f"overflow={overflow}: a document longer than a row is either split, drop or error")
    pieces: list[Piece] = []
    dropped: list[int] = []
    split = 0
    for document, length in enumerate(lengths):
        if length > capacity and overflow == "error":
            name = names[document] if names else f"document {document}"
            raise ValueError(f"{name} has {length:,} tokens, a row holds {capacity:,}; set packing.overflow=split or drop, or a larger context")
        if length > capacity and overflow == "drop":
            dropped.append(document)
            continue
        split += length > capacity
        pieces += [Piece(document, start, min(start + capacity, length)) for start in range(0, length, capacity)]
    return Packing(_fill(pieces, capacity), split, dropped)


def _fill(pieces: list[Piece], capacity: int) -> list[list[Piece]]:
    """Rows are kept by the room they have left, so the fullest that fits is found by one look at the rooms in use."""
    rows: list[list[Piece]] = []
    by_room: dict[int, deque[int]] = {}  # room left -> rows with it, the earliest first
    rooms: list[int] = []  # the rooms in use, ascending: at most `capacity` of them
    for piece in sorted(pieces, key=lambda piece: (piece.start - piece.stop, piece.document, piece.start)):
        length = piece.stop - piece.start
        at = bisect_left(rooms, length)
        if at == len(rooms):
            rows.append([])
            row, room = len(rows) - 1, capacity
        else:
            room = rooms[at]
            row = by_room[room].popleft()
            if not by_room[room]:
                rooms.pop(at)
        rows[row].append(piece)
        left = room - length
        if left > 0:
            if not by_room.get(left):
                rooms.insert(bisect_left(rooms, left), left)
            by_room.setdefault(left, deque()).append(row)
    return rows
