"""Our packing of a million lengths beside first-fit decreasing, and of the world's documents: seconds and fill. Knows lengths alone.

TRL's packing `bfd` places the same pieces into rows of the same lengths (tests/data/test_packing.py), so its fill is ours; it is not timed."""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.rounds import row
from benchmarks.train_turns import Turns
from soaes.data.packing import best_fit, sum_of_squares

CAPACITIES = (8192, 4096, 1024, 256)
SECONDS, FILL = 5.0, 99.5  # asked for; per cent
OURS, FIRST, SQUARES = "best-fit decreasing", "first-fit decreasing", "sum of squares"


class Packing:
    """Log-normal lengths, as texts have: half below 330 tokens, one in a hundred above 4,300; longer than a row is cut.

    rows: by contender and capacity, as of its last turn. world: the lengths of some documents, and the capacity of their rows."""

    def __init__(self, count: int, world: tuple[list[int], int]):
        self.lengths = np.clip(
            np.random.default_rng(0).lognormal(5.8, 1.1, count).astype(int), 8, None
        ).tolist()
        self.world, self.rows = world, {}
        ours = {
            f"{OURS}, rows of {capacity}": partial(self._timed, _ours, capacity)
            for capacity in CAPACITIES
        }
        self.first = f"{FIRST}, rows of {CAPACITIES[0]}"
        self.turns = Turns({**ours, self.first: partial(self._timed, first_fit, CAPACITIES[0])})

    def run(self, number: int, counted: bool) -> None:
        self.turns.run(number, counted)

    def results(self) -> Iterator[dict]:
        million = f"{len(self.lengths):,} log-normal lengths"
        for capacity in CAPACITIES:
            taken = self.turns.taken[f"{OURS}, rows of {capacity}"]
            yield row(f"{OURS}, rows of {capacity}, {million}", "s", taken, SECONDS, "lower")
            yield _fill(
                f"fill of {OURS}, rows of {capacity}, {million}",
                self.lengths,
                capacity,
                self.rows[_ours, capacity],
                len(taken),
            )
        yield row(
            f"{self.first}, by a tree of rooms, {million}",
            "s",
            self.turns.taken[self.first],
            better="lower",
        )
        yield _fill(
            f"fill of {self.first}, {million}",
            self.lengths,
            CAPACITIES[0],
            self.rows[first_fit, CAPACITIES[0]],
            len(taken),
        )
        lengths, capacity = self.world
        for name, pack in (
            (OURS, best_fit),
            (SQUARES, sum_of_squares),
        ):  # the second is what these rows were packed by
            packed = pack(lengths, capacity, "split").rows
            yield _fill(f"fill of {name}, rows of {capacity}, the {len(lengths):,} documents of these rows", lengths, capacity, packed, len(taken),
                        FILL if pack is sum_of_squares else None)  # fmt: skip

    def _timed(self, pack, capacity: int) -> float:
        began = time.perf_counter()
        self.rows[pack, capacity] = pack(self.lengths, capacity)
        return time.perf_counter() - began


def _fill(
    name: str, lengths: list[int], capacity: int, rows: int, rounds: int, asked: float | None = FILL
) -> dict:
    """The limit is that of as few rows as could hold the tokens."""
    tokens = sum(lengths)
    return row(
        name,
        "%",
        [100 * tokens / (rows * capacity)] * rounds,
        asked,
        limit=100 * tokens / (-(-tokens // capacity) * capacity),
    )


def _ours(lengths: list[int], capacity: int) -> int:
    return best_fit(lengths, capacity, "split").rows


def first_fit(lengths: list[int], capacity: int) -> int:
    """Rows of first-fit decreasing: each piece, the longest first, goes to the first row that holds it.

    Looking through the rows would take their square; a tree whose nodes know the most room below them finds the row in log2(rows) looks."""
    pieces = sorted(
        (
            min(capacity, length - start)
            for length in lengths
            for start in range(0, length, capacity)
        ),
        reverse=True,
    )
    leaves = (
        1 << (2 * sum(pieces) // capacity + 1).bit_length()
    )  # no two rows that follow each other are half empty both
    most = [capacity] * (2 * leaves)  # room below node i, whose children are 2 i and 2 i + 1
    used = 0
    for piece in pieces:
        at = 1
        while at < leaves:
            at = 2 * at if most[2 * at] >= piece else 2 * at + 1
        used = max(used, at - leaves + 1)
        most[at] -= piece
        while at > 1:
            at //= 2
            above = max(most[2 * at], most[2 * at + 1])
            if most[at] == above:
                break
            most[at] = above
    return used
